"""The compliance report: what it says is what the ledger says, its schema is published, and it
names nobody."""

import io
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pypdf import PdfReader

from flows.reporting.html import write_html
from flows.reporting.pdf import write_pdf
from flows.reporting.plots import pictures
from flows.reporting.sections import document_of
from flows.use_cases.reporting import parse_since
from flows.use_cases.verifying import verify_path
from s3t_core.canonical import sha256_hex
from s3t_core.domain import SliceId
from s3t_core.erasure.certificate import collateral_rows, make_statement
from s3t_core.erasure.dsse import sign, statement_of
from s3t_core.erasure.evidence_documents import Subject
from s3t_core.erasure.executor import STEPS
from s3t_core.erasure.merkle import continues
from s3t_core.erasure.report import build_report
from s3t_core.erasure.report_document import REPORT_TYPE, Report, RequestEntry
from s3t_core.erasure.state import State
from s3t_core.erasure.vocabulary import ReleaseCause
from s3t_core.errors import UsageError
from s3t_core.times import later, months_later, parse_time, rfc3339
from tests.fakes import FakeClock
from tests.unit.erasure.test_executor import World, make_world

KEY = Ed25519PrivateKey.from_private_bytes(b"\x03" * 32)
SCHEMA = Path(__file__).parents[3] / "docs" / "schemas" / "compliance-report.v1.json"
NOW = datetime(2026, 2, 20, tzinfo=UTC)


def _budget_of(state: State) -> dict[str, Any] | None:
    if state.release is None:
        return None
    depths = [state.release.live_depth(s) for s in state.release.shards()]
    return {
        "policy": "first_shard_dead",
        "exhausted": 0 in depths,
        "live_depths": depths,
        "certain_requests_left": 1,
    }


def _erased(*subjects: str) -> World:
    world = make_world()
    for number, subject in enumerate(subjects):
        world.ask(f"req-{number}", subject)
    world.eraser().run()
    return world


def _report(
    world: World,
    since: datetime | None = None,
    now: datetime = NOW,
    name: str = "my model",
    documents: Mapping[str, bytes] | None = None,
) -> Report:
    files = world.ports.certificates.files  # type: ignore[attr-defined]
    return build_report(
        name,
        world.ledger.events,
        files if documents is None else documents,
        since,
        now,
        _budget_of,
        1,
        {"s3t": "0.1.0"},
    )


@pytest.mark.parametrize(("kind", "met"), [("rejection", False), ("withdrawal", True)])
def test_a_refusal_is_told_within_the_first_month_also_where_its_time_was_extended(
    kind: str, met: bool
) -> None:
    """GDPR 12(4). Who takes a request back is late for nothing."""
    world = make_world()
    world.ask("req-0", "s01-2")
    was = parse_time(world.ledger.state().requests["req-0"].due)
    until = rfc3339(months_later(was, 2))
    world.tell(type="extended", request="req-0", due=until, reason="many letters", by="officer")

    def report_closed_at(days: int) -> RequestEntry:
        document = f"{kind} of {days}".encode()
        world.ledger.events.append(
            {
                "type": "closed",
                "time": rfc3339(later(was, days=days)),
                "request": "req-0",
                "kind": kind,
                "certificate": sha256_hex(document),
                "basis": "12(6)" if kind == "rejection" else "",
            }
        )
        [entry] = _report(world, now=later(was, days=9), documents={"req-0": document}).requests
        world.ledger.events.pop()
        return entry

    assert (report_closed_at(-1).met, report_closed_at(3).met) == (True, met)


def test_a_deadline_that_was_extended_is_met_by_the_new_one() -> None:
    """The certificate and the report say when it was due before (GDPR 12(3))."""
    world = make_world()
    world.ask("req-0", "s01-2")
    was = world.ledger.state().requests["req-0"].due
    until = rfc3339(months_later(parse_time(was), 2))
    world.tell(type="extended", request="req-0", due=until, reason="many letters", by="officer")
    world.ports.clock.time = later(parse_time(was), days=3)  # type: ignore[attr-defined]
    world.eraser().run()
    files = world.ports.certificates.files  # type: ignore[attr-defined]
    said = statement_of(files["req-0"])["predicate"]["request"]
    assert (said["due"], said["extended_from"], said["met"]) == (until, was, True)
    (entry,) = _report(world, now=later(parse_time(was), days=4)).requests
    assert (entry.due, entry.extended_from, entry.met) == (until, was, True)
    acts = _report(world, now=later(parse_time(was), days=4)).acts
    assert [(a.kind, a.by) for a in acts] == [("deadline extended", "officer")]
    jsonschema.validate(
        json.loads(_report(world, now=later(parse_time(was), days=4)).model_dump_json()),
        json.loads(SCHEMA.read_text()),
    )


def test_each_request_its_deadline_and_its_document_are_told() -> None:
    world = _erased("s00-1", "s01-0")
    world.ask("req-late", "s10-0")
    report = _report(world)
    by_id = {r.id: r for r in report.requests}
    assert (
        by_id["req-0"].outcome == "erased"
        and by_id["req-0"].met
        and by_id["req-0"].document == "as recorded"
    )
    assert (
        by_id["req-late"].outcome == "open" and by_id["req-late"].met is False
    )  # its due time is over
    s = report.summary
    assert (s.requests, s.erased, s.open, s.deadlines_met, s.deadlines_missed) == (3, 2, 1, 2, 1)
    assert s.to_cut_over.worst is not None and s.to_certificate.worst is not None
    assert 0 <= s.to_cut_over.worst <= s.to_certificate.worst
    before_due = _report(world, now=datetime(2026, 1, 15, tzinfo=UTC))
    assert before_due.summary.deadlines_missed == 0


def test_an_erasure_that_ended_late_counts_as_missed() -> None:
    world = make_world()
    world.ask("req-0", "s00-1", due="2026-01-01T00:00:00Z")
    world.eraser().run()
    report = _report(world)
    assert report.requests[0].met is False and report.summary.deadlines_missed == 1
    assert "missed their deadline" in write_html(document_of(report, pictures(report))).decode()


def test_one_that_is_open_past_its_due_time_is_never_shown_as_in_time() -> None:
    """A clock that was put right keeps anybody from saying by how much it is late."""
    world = make_world()
    world.ask("req-0", "s00-1", due="2026-01-01T00:00:00Z")
    report = _report(world)
    unsure = report.requests[0].model_copy(update={"met": None, "clock_corrected": True})
    none = report.summary.model_copy(update={"deadlines_missed": 0})
    report = report.model_copy(update={"requests": [unsure], "summary": none})
    told = write_html(document_of(report, pictures(report))).decode()
    assert "No deadline was missed" not in told and "not due" not in told
    assert "open past their due time" in told


def test_certificates_that_are_gone_or_changed_are_an_alarm() -> None:
    world = _erased("s00-1", "s01-0")
    report = _report(world, documents={"req-0": b"{}"})
    assert [r.document for r in report.requests] == ["other bytes", "missing"]
    assert (
        "2 closing document(s) are missing"
        in write_html(document_of(report, pictures(report))).decode()
    )


def test_a_request_whose_document_is_not_there_is_counted_as_nothing_but_that() -> None:
    summary = _report(_erased("s00-1", "s01-0"), documents={"req-0": b"{}"}).summary
    assert (summary.requests, summary.without_document) == (2, 2)
    assert (summary.erased, summary.deadlines_met, summary.deadlines_missed, summary.open) == (
        0,
        0,
        0,
        0,
    )
    assert summary.to_certificate.median is None
    told = write_html(
        document_of(_report(_erased("s00-1"), documents={}), pictures(_report(_erased("s00-1"))))
    ).decode()
    assert (
        "No deadline was missed" not in told
        and "cannot be shown to have been closed in time" in told
    )


def test_a_report_can_be_made_whatever_the_ledger_tells() -> None:
    """Every event that its rules take anywhere, and every part of the whole history: one closed set
    per field."""
    from tests.unit.erasure.test_rules import LEGAL, STATES, _history
    from tests.unit.erasure.test_rules import NOW as AT

    schema = jsonschema.Draft202012Validator(Report.model_json_schema())

    def made(events: list[Any]) -> Report:
        report = build_report("m", events, {}, None, NOW, _budget_of, 0, {})
        schema.validate(report.model_dump(mode="json"))
        return report

    for name in list(STATES)[1:]:
        made(_history(name))
    whole = made(_history("rotated"))
    assert document_of(whole, pictures(whole)).blocks
    for event, where in LEGAL.values():
        for name in sorted(where - {"empty"})[:2]:
            made([*_history(name), {"time": AT, **event}])
    for cause in get_args(ReleaseCause):
        release = next(e for e in _history("trained") if e["type"] == "release")
        if cause != "erasure":
            made([*_history("trained"), {**release, "version": "9", "cause": cause}])


def test_versions_say_what_they_may_use_and_the_picture_what_is_silenced() -> None:
    report = _report(_erased("s00-1"))
    first, last = report.versions
    assert (
        [u.slices for u in first.uses] == [(0, 1, 2), (0, 1, 2)]
        and first.served_until
        and first.destroyed
    )
    assert (
        [u.slices for u in last.uses] == [(1, 2), (0, 1, 2)]
        and last.cause == "erasure"
        and not last.served_until
    )
    uses = {(p.shard, s.slice): s.use for p in report.picture for s in p.slices}
    assert uses[0, 0] == "silenced" and uses[0, 1] == uses[0, 2] == uses[1, 0] == "answers"
    erasure = report.erasures[0]
    assert [(s.shard, s.slice) for s in erasure.slices] == [(0, 0)] and erasure.collateral_rows == 2
    assert [p.live_depths for p in report.budget] == [(3, 3), (2, 3)]


def test_rows_that_a_replacement_has_learned_from_are_no_collateral() -> None:
    """Where it was trained first, the version that serves uses what is left in the touched
    slices."""
    world = _erased("s00-1")
    state = world.ledger.state()
    first, last = state.versions
    assert collateral_rows([SliceId(0, 0)], state) == 2
    state.versions[-1] = replace(last, release=first.release)
    assert collateral_rows([SliceId(0, 0)], state) == 0


def test_a_request_that_found_nobody_counts_as_none_that_was_erased() -> None:
    assert _report(_erased("s00-1", "nobody-of-that-name")).budget[-1].requests_erased == 1


@pytest.mark.parametrize(
    ("closed", "met"), [("2027-02-01T00:00:00Z", None), ("2026-02-10T00:00:00Z", False)]
)
def test_what_was_closed_by_a_clock_that_ran_ahead_is_not_said_to_be_late(
    closed: str, met: bool | None
) -> None:
    """It may have been in time. What was late by a clock that nobody put right since was late."""
    world = make_world()
    world.ask("req-0", "s00-1", due="2026-02-01T00:00:00Z")
    world.ledger.take(
        {
            "type": "closed",
            "time": closed,
            "request": "req-0",
            "kind": "withdrawal",
            "certificate": sha256_hex(b"{}"),
        }
    )
    if met is None:
        world.ledger.take(
            {
                "type": "replayed",
                "time": "2026-01-20T00:00:00Z",
                "version": "1",
                "live": 9,
                "same_profile": True,
                "same": ["a"],
                "other": [],
            }
        )  # the clock was put right before it
    report = _report(world, documents={"req-0": b"{}"})
    assert report.requests[0].outcome == "withdrawal" and report.requests[0].met is met
    assert report.summary.deadlines_missed == (met is False)


@pytest.mark.parametrize("ahead_from", ["before it came", "its plan"])
@pytest.mark.parametrize("until", ["plan", *STEPS[:-1]])
def test_no_time_is_told_over_a_clock_that_was_put_right_in_between(
    ahead_from: str, until: str
) -> None:
    """It ran 700 days ahead up to and with this step. The certificate says so as well."""
    world, clock = make_world(), FakeClock()
    ahead = timedelta(days=700)
    world.ports = replace(world.ports, clock=clock)
    asked = clock.time + (ahead if ahead_from == "before it came" else timedelta())
    world.ledger.take(
        {
            "type": "replayed",
            "time": rfc3339(asked),
            "version": "1",
            "live": 9,
            "same_profile": True,
            "same": ["a"],
            "other": [],
        }
    )
    world.ask("req-0", "s00-1", due=rfc3339(asked + timedelta(days=30)))
    clock.time += ahead
    eraser = world.eraser()
    plan = eraser.plan()
    assert plan is not None
    for step in ("plan", *STEPS):
        if step != "plan":
            eraser.run_step(step, plan)
        if step == until:
            clock.time -= ahead
    report = _report(world)
    entry = report.requests[0]
    assert entry.outcome == "erased" and entry.met is not False
    assert entry.seconds_to_cut_over is None and entry.seconds_to_certificate is None
    assert report.summary.to_cut_over.worst is None and report.summary.to_certificate.worst is None
    files = world.ports.certificates.files  # type: ignore[attr-defined]
    assert statement_of(files["req-0"])["predicate"]["times"]["clock_corrected"] is True
    assert (
        statement_of(_erased("s00-1").ports.certificates.files["req-0"])[  # type: ignore[attr-defined]
            "predicate"
        ]["times"]["clock_corrected"]
        is False
    )


@pytest.mark.parametrize("wrong", [-400, 300, 700], ids="{:+} days".format)
@pytest.mark.parametrize("whole", [True, False], ids=["from the beginning", "of some days"])
@pytest.mark.parametrize("right_again", [True, False])
def test_a_report_tells_of_whatever_a_wrong_clock_told_in_its_period(
    wrong: int, whole: bool, right_again: bool
) -> None:
    """By their times they lie outside of it: a request, its erasure, a replay, the correction
    itself. And a report that begins with the ledger has all of it."""
    world, clock = make_world(), FakeClock()
    world.ports = replace(world.ports, clock=clock)
    began = clock.time + timedelta(days=100)
    clock.time = began + timedelta(days=1, hours=1) + timedelta(days=wrong)
    world.ledger.take(_replay(began))
    world.ledger.take(_replay(began + timedelta(days=1)))
    world.ledger.take(_replay(clock.time))
    world.ask("req-0", "s00-1", due=rfc3339(clock.time + timedelta(days=30)))
    world.eraser().run()
    if right_again:
        world.ledger.take(_replay(began + timedelta(days=2)))
    told = _report(
        world,
        since=None if whole else began + timedelta(hours=1),
        now=began + timedelta(days=20),
    )
    assert [r.outcome for r in told.requests] == ["erased"] and len(told.erasures) == 1
    assert [v.version for v in told.versions] == ["1", "2"]
    if wrong < 0 or right_again:
        assert [a.kind for a in told.acts] == ["clock corrected"]
    assert len(told.replays) == 2 + whole + right_again
    assert (told.ledger.size_before == 0) is whole
    if whole:
        assert told.period.since <= told.period.until


def _replay(time: datetime) -> dict[str, Any]:
    return {
        "type": "replayed",
        "time": rfc3339(time),
        "version": "1",
        "live": 9,
        "same_profile": True,
        "same": ["a"],
        "other": [],
    }


def test_a_period_has_what_was_open_in_it_and_the_proof_that_the_ledger_went_on() -> None:
    world = _erased("s00-1")
    cut = datetime(2026, 2, 1, tzinfo=UTC)
    world.ledger.take(
        {
            "type": "replayed",
            "time": "2026-02-02T00:00:00Z",
            "version": "2",
            "live": 9,
            "same_profile": True,
            "same": ["a"],
            "other": [],
        }
    )
    report = _report(world, cut)
    assert report.requests == () and report.erasures == () and len(report.replays) == 1
    assert [v.version for v in report.versions] == ["2"] and len(
        report.budget
    ) == 1  # as the period began
    ledger = report.ledger
    assert 0 < ledger.size_before < ledger.size
    assert continues(
        bytes.fromhex(ledger.root_before),
        ledger.size_before,
        bytes.fromhex(ledger.root),
        ledger.size,
        [bytes.fromhex(h) for h in ledger.consistency],
    )
    assert "no request in this period" in write_html(document_of(report, pictures(report))).decode()


def test_the_published_schema_is_the_documents_own_and_it_names_nobody(tmp_path: Path) -> None:
    world = _erased("s00-1", "nobody-of-that-name")
    report = _report(world).model_dump(mode="json")
    assert json.loads(SCHEMA.read_text()) == Report.model_json_schema()
    jsonschema.validate(report, Report.model_json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report | {"more": 1}, Report.model_json_schema())
    assert not re.search(
        "s00-1|nobody-of-that-name|commitment", json.dumps(report).replace("plan-", "")
    )


def test_the_signed_report_verifies_and_any_change_of_it_is_detected(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = tmp_path / "key.pub"
    public.write_bytes(
        KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    report = _report(_erased("s00-1"))
    path = tmp_path / "report.json"
    subject = Subject(name="x", digest={})
    path.write_bytes(sign(make_statement(report, subject, REPORT_TYPE), KEY))
    found = verify_path(path, public)
    assert found["valid"] and found["reports"][0]["erased"] == 1
    path.write_bytes(path.read_bytes().replace(b"A", b"B", 1))
    assert not verify_path(path, public)["valid"]
    path.write_bytes(sign(make_statement(subject, subject, REPORT_TYPE), KEY))
    assert not verify_path(path, public)["valid"]


def test_the_page_stands_alone_and_escapes_what_people_wrote() -> None:
    report = _report(_erased("s00-1"), name="<script>alert(1)</script>")
    page = write_html(document_of(report, pictures(report))).decode()
    assert "<script" not in page and "&lt;script&gt;" in page
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert (
        not re.search(r'\b(src|href)="(?!#)', without_names)
        and "@import" not in page
        and "url(http" not in page
    )
    assert page.count("<svg") == 3


def test_the_paper_says_what_the_page_says() -> None:
    report = _report(_erased("s00-1"), name="Modell Ä 模")
    reader = PdfReader(io.BytesIO(write_pdf(document_of(report, pictures(report)))))
    text = " ".join(" ".join(page.extract_text() for page in reader.pages).split())
    assert (
        "Erasure report: Modell Ä" in text
        and "No deadline was missed: 1 of 1 requests are closed" in text
    )
    assert "What this does not cover" in text and report.ledger.root in text.replace(" ", "")


def test_the_period_is_given_as_a_day_a_time_or_how_far_back() -> None:
    assert parse_since("", NOW) is None
    assert parse_since("2026-01-01", NOW) == datetime(2026, 1, 1, tzinfo=UTC)
    assert parse_since("2026-01-01T02:00:00+02:00", NOW) == datetime(2026, 1, 1, tzinfo=UTC)
    assert parse_since("31d", NOW) == NOW - timedelta(days=31)
    assert parse_since("99999999999d", NOW) is None
    for beginning in ("0001-01-01", "0999-12-31T23:00:00Z", "1969-12-31", "730000d"):
        assert parse_since(beginning, NOW) is None, "years of fewer digits are no text to compare"
    assert parse_since("1970-01-01", NOW) == datetime(1970, 1, 1, tzinfo=UTC)
    for wrong in ("yesterday", "d", "-3d", "2026-13-01"):
        with pytest.raises(UsageError, match="--since"):
            parse_since(wrong, NOW)
