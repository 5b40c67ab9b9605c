"""The report in plain words, for a reader who knows neither machine learning nor this system."""

from flows.reporting.blocks import Block, Cell, Document, Heading, Picture, Points, Table, Text
from s3t_core.domain import as_accuracy
from s3t_core.erasure.closing import BASES
from s3t_core.erasure.evidence_documents import MeasuredScore
from s3t_core.erasure.outcome import render_outcome
from s3t_core.erasure.report_document import (
    ErasureEntry,
    ExportEntry,
    Report,
    RequestEntry,
    Summary,
    VersionEntry,
)
from s3t_core.erasure.vocabulary import ExportStanding, ReleaseCause

_ENDINGS = {"withdrawal": "withdrawn", "rejection": "rejected"}
_ALARMING = ("missed", "closed, but")
"""How the lines begin that are red when they count anything."""
_CAUSES: dict[ReleaseCause, str] = {
    "train": "training",
    "retrain": "full retrain",
    "repair": "repair",
    "erasure": "erasure",
    "restored": "put back after a restore",
}


_STANDINGS: dict[ExportStanding, Cell] = {
    "serves": Cell("is the version that serves", "good"),
    "superseded": Cell("of an earlier version", "quiet"),
    "stale": Cell("STALE: replace it", "bad"),
    "replaced": Cell("replaced", "quiet"),
    "destroyed": Cell("destroyed by an erasure", "quiet"),
}


def document_of(report: Report, pictures: dict[str, Picture | None]) -> Document:
    """The whole report as a document."""
    blocks: list[Block] = [
        *_in_short(report),
        *_requests(report),
        *_erasures(report),
        *_versions(report, pictures),
        *_exports(report.exports or ()),
        *_budget(report, pictures),
        *_live(pictures),
        *_replays(report),
        *_acts(report),
        *_evidence(report),
        *_limits(report),
    ]
    period = report.period
    return Document(
        f"Erasure report: {report.system}",
        f"{_day(period.since)} to {_moment(period.until)}",
        tuple(blocks),
    )


def _in_short(report: Report) -> list[Block]:
    return [
        Heading("In short"),
        Text(
            "When a person asks for their data to be erased, the parts of the model that learned "
            "from it are switched off and destroyed, the data is removed everywhere the system "
            "keeps it, and everything is searched for what is left. The model that serves "
            "afterwards is, byte for byte, one that never saw the data. Each request ends in one "
            "signed document."
        ),
        *_alarms(report),
        _counts(report.summary),
        *([_durations(report.summary)] if report.summary.erased else []),
    ]


def _alarms(report: Report) -> list[Block]:
    """Whether deadlines were met, and what must be looked into."""
    s = report.summary
    late = Text(f"{s.deadlines_missed} of {s.requests} requests missed their deadline.", "bad")
    unclear = _open_and_late(report)
    on_time = Text(_on_time(s, unclear), "bad" if s.without_document or unclear else "good")
    blocks: list[Block] = [late if s.deadlines_missed else on_time]
    broken = [r for r in report.requests if r.document in ("missing", "other bytes")]
    if broken:
        blocks.append(
            Text(
                f"{len(broken)} closing document(s) are missing, or are not the ones that the "
                "ledger recorded: restore .s3t/certificates from its backup.",
                "bad",
            )
        )
    stale = sum(e.standing == "stale" for e in report.exports or ())
    if stale:
        blocks.append(
            Text(
                f"{stale} exported checkpoint(s) have a part that learned from somebody who was "
                "erased since, and lie where the system cannot reach them: the operator replaces "
                "them.",
                "bad",
            )
        )
    different = sum(r.other for r in report.replays)
    if different:
        blocks.append(
            Text(
                f"{different} part(s) of the model, trained again, came out different: the model "
                "that serves is not what the ledger says. Find out why before relying on it.",
                "bad",
            )
        )
    return blocks


def _counts(s: Summary) -> Table:
    counted = (
        ("in this period, all together", s.requests),
        ("erased, with a certificate", s.erased),
        ("nothing found of whom they named, with a certificate", s.nothing_found),
        ("rejected, with the legal basis", s.rejected),
        ("withdrawn by whoever asked", s.withdrawn),
        ("still open", s.open),
        ("closed by their deadline", s.deadlines_met),
        ("missed their deadline", s.deadlines_missed),
        ("closed, but without the document to show for it", s.without_document),
    )
    rows = []
    for label, count in counted:
        is_alarm = label.startswith(_ALARMING) and count > 0
        rows.append((Cell(label), Cell(str(count), "bad" if is_alarm else "plain")))
    return Table(("", "requests"), tuple(rows), (4, 1))


def _durations(s: Summary) -> Table:
    measured = (
        ("no new answer used the person's data", s.to_cut_over),
        ("the certificate was signed", s.to_certificate),
    )
    rows = tuple(
        (Cell(label), Cell(_span(took.median)), Cell(_span(took.worst))) for label, took in measured
    )
    return Table(
        ("from the request until", "median", "longest"),
        rows,
        (4, 1, 1),
    )


def _open_and_late(report: Report) -> int:
    """How many are open past their due time, of which a clock that was put right keeps anybody from
    saying that they missed it."""
    return sum(_is_late(r, report.period.until) and r.met is None for r in report.requests)


def _is_late(r: RequestEntry, now: str) -> bool:
    return r.closed is None and r.due < now


def _on_time(s: Summary, late: int) -> str:
    if not s.requests:
        return "There was no request in this period."
    if s.without_document:
        return (
            f"{s.without_document} of {s.requests} requests cannot be shown to have been closed in "
            "time: their documents are missing or changed."
        )
    if late:
        return (
            f"{late} of {s.requests} requests are open past their due time; a clock that was put "
            "right meanwhile leaves open by how much."
        )
    return (
        f"No deadline was missed: {s.deadlines_met} of {s.requests} requests are closed, {s.open} "
        "open with time left."
    )


def _requests(report: Report) -> list[Block]:
    if not report.requests:
        return []
    return [
        Heading("Every request"),
        Text(
            'By request id; the person appears in no report. "Document" says whether the closing '
            "document on disk is the one that the ledger recorded."
        ),
        Table(
            ("request", "received", "due", "outcome", "closed", "in time", "document"),
            tuple(_request_row(r, report.period.until) for r in report.requests),
            (2.3, 1.6, 1.6, 1.5, 1.6, 0.9, 1.3),
        ),
    ]


def _request_row(r: RequestEntry, now: str) -> tuple[Cell, ...]:
    outcome = "".join(
        [
            render_outcome(_ENDINGS.get(r.outcome, r.outcome), r.rows),
            f", {r.legal_basis}" if r.legal_basis else "",
            ", one record" if r.scope == "record" else "",
        ]
    )
    is_early = r.closed is None and not _is_late(r, now)
    open_yet = Cell("not due", "quiet") if is_early else Cell("NOT SHOWN", "bad")
    met = Cell("yes", "good") if r.met else Cell("NO", "bad") if r.met is False else open_yet
    held = {"as recorded": Cell("as recorded", "good"), "none yet": Cell("none yet", "quiet")}
    return (
        Cell(r.id),
        Cell(_moment(r.received)),
        Cell(_moment(r.due) + (" (extended)" if r.extended_from else "")),
        Cell(outcome),
        Cell(_moment(r.closed) if r.closed else "-"),
        met,
        held.get(r.document, Cell(r.document.upper(), "bad")),
    )


def _erasures(report: Report) -> list[Block]:
    if not report.erasures:
        return []
    rows = sum(e.collateral_rows for e in report.erasures)
    outside = sum(e.copies_outside for e in report.erasures)
    warned = (
        [
            Text(
                f"{outside} file(s) beside the system's own held a match when they were scanned: "
                "copies that only the operator can destroy.",
                "bad",
            )
        ]
        if outside
        else []
    )
    return [
        Heading("What each erasure did"),
        Text(
            f"Requests are carried out in batches. {rows} record(s) of other people share a slice "
            "with an erased one and are not used by the model until it is retrained (collateral). "
            "Slices are the portions into which the data is divided, written shard/slice."
        ),
        *warned,
        Table(
            (
                "certified",
                "requests",
                "slices touched",
                "model parts destroyed",
                "collateral records",
                "files searched",
                "score before, after",
            ),
            tuple(_erasure_row(e) for e in report.erasures),
            (1.6, 1, 1.6, 1.2, 1.2, 1.2, 1.6),
        ),
    ]


def _erasure_row(e: ErasureEntry) -> tuple[Cell, ...]:
    slices = ", ".join(f"{s.shard}/{s.slice}" for s in e.slices[:8]) + (
        " ..." if len(e.slices) > 8 else ""
    )
    touched = slices or ("held-out rows only" if e.held_out_touched else "none")
    return (
        Cell(_moment(e.certified)),
        Cell(str(e.requests)),
        Cell(touched),
        Cell(str(e.stages_deactivated)),
        Cell(str(e.collateral_rows)),
        Cell(f"{e.scanned_files}, no match"),
        Cell(
            f"{render_score(e.score_before, e.accuracy_before)}, "
            f"{render_score(e.score_after, e.accuracy_after)}"
        ),
    )


def _versions(report: Report, pictures: dict[str, Picture | None]) -> list[Block]:
    if not report.versions:
        return []
    drawn = pictures["score"]
    return [
        Heading("Model versions, and what each may use"),
        Text(
            "A version answers only with what it learned from the slices listed. A destroyed "
            "version cannot be loaded any more, and one that was loaded before refuses to answer."
        ),
        Table(
            (
                "version",
                "made by",
                "served from",
                "until",
                "may use (shard: slices)",
                "score",
                "now",
            ),
            tuple(_version_row(v) for v in report.versions),
            (0.8, 1.2, 1.6, 1.6, 2.6, 0.9, 1),
        ),
        *([drawn] if drawn else []),
    ]


def _version_row(v: VersionEntry) -> tuple[Cell, ...]:
    uses = "; ".join(
        f"{u.shard}: {' '.join(map(str, u.slices)) or 'none'}" for u in v.uses[:12]
    ) + (f"; and {len(v.uses) - 12} more shards" if len(v.uses) > 12 else "")
    now = (
        Cell("destroyed", "quiet")
        if v.destroyed
        else Cell("kept", "quiet")
        if v.served_until
        else Cell("serves", "good")
    )
    return (
        Cell(v.version),
        Cell(_CAUSES[v.cause]),
        Cell(_moment(v.served_from)),
        Cell(_moment(v.served_until) if v.served_until else "-"),
        Cell(uses),
        Cell(render_score(v.score, v.accuracy)),
        now,
    )


def _exports(exports: tuple[ExportEntry, ...]) -> list[Block]:
    if not exports:
        return []
    return [
        Heading("Exported checkpoints"),
        Text(
            "Copies of a version as one plain model, for whoever runs it elsewhere. Such a copy "
            "asks nobody whether it may still answer: an erasure destroys it where it was put, and "
            "names it where it is not there any more."
        ),
        Table(
            ("checkpoint", "exported", "of release", "now"),
            tuple(
                (
                    Cell(e.export),
                    Cell(_moment(e.exported)),
                    Cell(e.release),
                    _STANDINGS[e.standing],
                )
                for e in exports
            ),
            (2, 1.4, 2.2, 1.6),
        ),
    ]


def _budget(report: Report, pictures: dict[str, Picture | None]) -> list[Block]:
    drawn = pictures["budget"]
    if drawn is None:
        return []
    last = report.budget[-1]
    left = ""
    if last.certain_requests_left is not None and not last.exhausted:
        left = (
            f"At least {last.certain_requests_left} more request(s) are certain to fit, each of "
            "one person."
            if last.certain_requests_left
            else "The next request may spend it."
        )
    return [
        Heading("The deletion budget"),
        Text(
            "Each erasure switches parts of the model off. When the budget is spent, the model is "
            f"retrained on the data that remains. {left}"
        ),
        *([Text("The budget is spent: a full retrain is due.", "bad")] if last.exhausted else []),
        drawn,
    ]


def _live(pictures: dict[str, Picture | None]) -> list[Block]:
    drawn = pictures["live"]
    return [Heading("What the serving model has learned from"), drawn] if drawn else []


def _replays(report: Report) -> list[Block]:
    text = (
        "Parts of the serving model are trained again from their recorded inputs, and the bytes "
        "compared: evidence that the model is what the ledger says it is."
    )
    if not report.replays:
        return [
            Heading("Replays"),
            Text(f"{text} None was made in this period (`s3t audit --replay N`).", "quiet"),
        ]
    return [
        Heading("Replays"),
        Text(text),
        Table(
            (
                "when",
                "version",
                "parts that serve",
                "trained again, same bytes",
                "other bytes",
                "machine and method",
            ),
            tuple(
                (
                    Cell(_moment(r.time)),
                    Cell(r.version),
                    Cell(str(r.live)),
                    Cell(str(r.same), "good"),
                    Cell(str(r.other), "bad" if r.other else "plain"),
                    Cell("the same" if r.same_profile else "another: nothing can be said"),
                )
                for r in report.replays
            ),
            (1.6, 0.8, 1.2, 1.6, 1.1, 1.7),
        ),
    ]


def _acts(report: Report) -> list[Block]:
    if not report.acts:
        return []
    return [
        Heading("What people and the system decided"),
        Table(
            ("when", "what", "by", "detail"),
            tuple(
                (
                    Cell(_moment(a.time)),
                    Cell(a.kind),
                    Cell(a.by or "the system"),
                    Cell(f"{a.detail}: {BASES[a.detail]}" if a.detail in BASES else a.detail),
                )
                for a in report.acts
            ),
            (1.6, 1.6, 1.6, 3),
        ),
    ]


def _evidence(report: Report) -> list[Block]:
    ledger = report.ledger
    before = (
        (
            f"It continues the one of {ledger.size_before} entries before the period; report.json "
            "has the proof (RFC 6962)."
        )
        if ledger.size_before
        else "The period begins with it."
    )
    return [
        Heading("Evidence"),
        Text(
            f"Everything above is read from an append-only ledger of {ledger.size} entries. "
            f"{before} report.json is signed, and says the same as this page: `s3t verify "
            "report.json --key CONTROLLER_KEY.pem`. Each certificate with its proofs, and a "
            "verifier that needs nothing of ours: `s3t audit --bundle FILE`."
        ),
        Table(
            ("", ""),
            (
                (Cell("ledger"), Cell(ledger.name)),
                (Cell("root"), Cell(ledger.root)),
                (
                    Cell("suppression list"),
                    Cell(
                        f"{report.suppressed} person(s) or record(s), by keyed "
                        "digest: no later ingest brings them back"
                    ),
                ),
                (Cell("software"), Cell(", ".join(f"{k} {v}" for k, v in report.software.items()))),
            ),
            (1, 5),
        ),
    ]


def _limits(report: Report) -> list[Block]:
    return [
        Heading("What this does not cover"),
        Points(report.limits),
        Heading("What documents alone cannot prove"),
        Points(report.not_proved),
    ]


def render_score(score: MeasuredScore | None, accuracy: float | None) -> str:
    """A score as it stands in a report: an accuracy as a percentage, with its interval where that
    is known; any other with its name."""
    found = score.score() if score else as_accuracy(accuracy)
    if found is None:
        return "unknown"
    return found.in_words() if found.accuracy is not None else f"{found.name} {found.in_words()}"


def _day(time: str) -> str:
    return time[:10]


def _moment(time: str) -> str:
    return f"{time[:10]} {time[11:16]}" if len(time) > 16 else time


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
