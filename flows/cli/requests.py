"""The commands about requests: take, list, approve, hold, withdraw, reject, and let a person
return."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from flows.cli.base import JsonOption, WorkspaceOption, open_workspace, show
from s3t_core.erasure.outcome import ErasureOutcome, told_outcome
from s3t_core.errors import UsageError

if TYPE_CHECKING:
    from flows.use_cases.documents import (
        Certified,
        HeldDocument,
        PersonFound,
        RequestsDocument,
        TakenDocument,
    )
    from flows.use_cases.finding import Finding
    from flows.workspace.workspace import Workspace


ByOption = Annotated[
    str,
    typer.Option(
        "--by",
        help=(
            "Who decides: a role, as 'privacy officer'. It stands in the ledger, so it may quote "
            "nobody's id."
        ),
    ),
]
RecordOption = Annotated[str, typer.Option("--record", help="Only this record of the subject.")]
BasisOption = Annotated[
    str, typer.Option("--basis", help="GDPR article: 12(5), 12(6), 17(3)(a) to (e), or other.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="In a sentence that names nobody.")]
RequestArgument = Annotated[
    str, typer.Argument(metavar="REQUEST", help="The id that `s3t request` gave.")
]
SubjectArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[SUBJECT]",
        help=(
            "The id as in the source. Better with --stdin: what stands on a command line stands in "
            "`ps` and in the shell's history. One that begins with - comes after --, as in `-- "
            "-17`."
        ),
    ),
]
StdinOption = Annotated[
    bool, typer.Option("--stdin", help="Read ids from the standard input, one a line.")
]
FileOption = Annotated[
    str | None,
    typer.Option(
        "--file", metavar="FILE", help="Read ids from a file, one a line; - is the standard input."
    ),
]
_SHOWN = 20
RETURNED = ("withdrawal", "rejection")
"""States in which a request ended, and nothing was erased."""


_Subjects = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SUBJECT]...",
        help=(
            "Ids as in the source. Better with --stdin or --file: what stands on a command "
            "line stands in `ps` and in the shell's history. Ids that begin with - come after "
            "--."
        ),
    ),
]
_Column = Annotated[
    str,
    typer.Option(
        "--column",
        metavar="NAME",
        help="The file is a table (CSV) with ids "
        "in this column. Without it: one a line, or a table that has the "
        "column [data] subject.",
    ),
]
_Hashed = Annotated[
    list[str] | None,
    typer.Option(
        "--hashed",
        metavar="sha256:HEX",
        help=(
            "Who has an id with this hash (sha256, sha1 or md5; where nobody has, of the id in "
            "lower case without blanks) when it is carried out. May stand several times."
        ),
    ),
]
_Key = Annotated[
    str,
    typer.Option(
        "--key",
        help="An idempotency key of yours: asked again with it, the "
        "request is the same one, also when it is closed.",
    ),
]


def request(
    subjects: _Subjects = None,
    stdin: StdinOption = False,
    file: FileOption = None,
    column: _Column = "",
    record: RecordOption = "",
    hashed: _Hashed = None,
    key: _Key = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take deletion requests. They are durable before this command says so; `s3t erase` carries
    them out.

    `s3t request --stdin < ids.txt`, or type the ids and end with Ctrl-D."""
    opened = open_workspace(workspace)
    from flows.use_cases.requests import states_of, take_hashed, take_requests

    lines, open_before = (
        _ids(opened, stdin, file, column),
        {r.request_id for r in opened.requests.pending()},
    )
    given = list(dict.fromkeys([*(subjects or []), *lines]))
    if hashed and (given or record):
        raise UsageError(
            "expected ids or hashes of ids in one command, got both (or --record beside a hash); "
            "ask twice"
        )
    taken = (
        take_hashed(opened, hashed, key) if hashed else take_requests(opened, given, record, key)
    )
    states, found = (
        states_of(opened, taken),
        _found(opened, given, hashed or [], record, [r.request_id for r in taken]),
    )
    document: TakenDocument = {
        "requests": [
            {
                "id": r.request_id,
                "received": r.received,
                "due": r.due,
                "state": states[r.request_id],
            }
            for r in taken
        ],
        "open_before": [r.request_id for r in taken if r.request_id in open_before],
        "found": [
            {
                **each,
                "line": None if each["subject"] in (subjects or []) else lines.get(each["subject"]),
            }
            for each in found
        ],
    }
    show(as_json, document, _render_taken)
    ended = told_ended(document, record)
    if ended:
        print(f"s3t: {ended}; ask anew with another --key", file=sys.stderr)
        sys.exit(1)


def told_ended(document: "TakenDocument", record: str) -> str:
    """Why what was asked with an idempotency key is not going to happen, "" where it is, or has
    happened: the key stands for a request that is closed."""
    states = {r["id"]: r["state"] for r in document["requests"]}
    if any(state in RETURNED for state in states.values()):
        return (
            "what was asked with this key before was withdrawn or rejected, so nothing of it is "
            "pending"
        )
    back = (
        each["found"] == "in the data" and states[each["request"]] in get_args(ErasureOutcome)
        for each in document["found"]
    )
    if not record and any(back):
        return (
            "what was asked with this key before was carried out, and whoever it is about is in "
            "the data again, so nothing of it is pending"
        )
    return ""


def _found(
    opened: "Workspace", given: list[str], hashed: list[str], record: str, taken: list[str]
) -> "list[PersonFound]":
    """Who of those that were asked for is in the data, with the request that each is in: `taken`,
    one for each person in the order in which they were given."""
    from flows.use_cases.finding import look_up, look_up_hashed, spelt

    if hashed:
        by_hash = look_up_hashed(opened, hashed)
        return [
            _as_json("", who, request, finding)
            for (who, finding), request in zip(by_hash.items(), taken, strict=True)
        ]
    under = spelt(opened, given)
    request_of = dict(zip(dict.fromkeys(under.values()), taken, strict=True))
    return [
        _as_json(who, "", request_of[under[who]], finding)
        for who, finding in look_up(opened, under, record).items()
    ]


def _as_json(subject: str, hashed: str, request: str, finding: "Finding") -> "PersonFound":
    erased = finding.erased
    return {
        "subject": subject,
        "hashed": hashed,
        "request": request,
        "found": finding.found,
        "nearly": next(iter(finding.near), ""),
        "spellings": list(finding.near),
        "others": finding.others,
        "why": finding.why,
        "erased": {"request": erased.request, "time": erased.time} if erased else None,
    }


def _render_taken(d: "TakenDocument") -> list[str]:
    ended = (*RETURNED, *get_args(ErasureOutcome))
    stands: dict[str, list[str]] = {}
    for each in d["found"]:
        if each["line"]:
            stands.setdefault(each["request"], []).append(str(each["line"]))
    lines = []
    for r in d["requests"]:
        at = stands.get(r["id"], [])
        where = f"  line{'s' if len(at) > 1 else ''} {', '.join(at)}" if at else ""
        lines.append(
            f"{r['id']}{where}  "
            + (
                f"closed before: {r['state']}"
                if r["state"] in ended
                else f"due {r['due']}"
                + (", asked for before: the same request" if r["id"] in d["open_before"] else "")
            )
        )
    standing = [r for r in d["requests"] if r["state"] not in ended]
    again = len(d["open_before"])
    accepted = f"{len(standing) - again} request(s) accepted" + (
        f", {again} open since before" if again else ""
    )
    return [
        *lines,
        *_render_found(d["found"]),
        f"{accepted}." + (" Next: `s3t erase`." if standing else ""),
    ]


def _render_found(found: "list[PersonFound]") -> list[str]:
    """Who of those that were asked for is in the data, and who is not. An id that was given on the
    command line stands there already; one of a file is told by its line."""
    kinds = {
        kind: [f for f in found if f["found"] == kind]
        for kind in ("in the data", "nearly", "nobody", "not told")
    }
    here = kinds["in the data"]
    erased = [(f, e) for f in [*kinds["nobody"], *kinds["nearly"]] if (e := f["erased"])]
    lines = _render_here(here, len(found) - len(kinds["not told"]))
    lines += _render_nearly(kinds["nearly"])
    lines += _some(
        [
            f"  {_who(f)}: already erased by {e['request']} on "
            f"{e['time'][:10]}; nothing new is there"
            for f, e in erased
        ],
        "that were erased before",
    )
    nobody = [f for f in kinds["nobody"] if not f["erased"]]
    lines += _some(
        [
            f"  nobody with this hash is in the data: {f['request']}"
            if f["hashed"]
            else f"  not in the data: {_who(f)}"
            for f in nobody
        ],
        "that are not in the data",
    )
    if any(not f["hashed"] for f in nobody):
        lines.append("  Nothing will be found for them: see that they are spelt as in the source.")
    if any(f["hashed"] for f in nobody):
        lines.append("  Who has an id with the hash when the request is carried out is meant too.")
    return [
        *lines,
        *dict.fromkeys(
            f"  Whether they are in the data is not told: {f['why']}." for f in kinds["not told"]
        ),
    ]


def _render_others(found: "PersonFound") -> str:
    others = found["others"]
    named = f": {_named(found)}" if found["spellings"] else ""
    if others > 1:
        stays = f"{others} other spellings of it are there too and stay"
    else:
        stays = f"{others} other spelling of it is there too and stays"
    return f"  {_who(found)}: {stays}{named}"


def _render_here(here: "list[PersonFound]", of: int) -> list[str]:
    """Who is there, and who else is under another spelling, and stays."""
    hashed = [
        f"  somebody with this hash is in the data: {f['request']}" for f in here if f["hashed"]
    ]
    lines = _some(hashed, "of whom somebody is in the data")
    if not hashed and here:
        lines.append(f"  in the data: {len(here)} of {of}")
    more = [_render_others(f) for f in here if f["others"]]
    lines += _some(more, "with other spellings that stay")
    if more:
        lines.append(
            "  If that is the same person, ask for it as well, or set [data] id_rule "
            "(docs/your-data.md)."
        )
    return lines + list(
        dict.fromkeys(
            f"  Whether other spellings of them are there is not told: {f['why']}."
            for f in here
            if f["why"]
        )
    )


def _render_nearly(nearly: "list[PersonFound]") -> list[str]:
    lines = _some(
        [
            f"  not in the data: {_who(f)}, but "
            + (
                f"{_named(f)} {'is' if f['others'] == 1 else 'are'} there"
                if f["spellings"]
                else "somebody is whose id differs only in letter case, blanks, Unicode form or .0"
            )
            for f in nearly
        ],
        "that are not in the data, but nearly",
    )
    if nearly:
        asked = " ".join(dict.fromkeys(f["request"] for f in nearly[:_SHOWN]))
        withdraw = (
            f"`s3t withdraw {asked}`"
            if " " not in asked
            else f"`s3t withdraw REQUEST` for each of {asked}"
        )
        lines.append(
            f"  Withdraw what is misspelt, {withdraw}, and ask with the spelling in the data, or "
            "set [data] id_rule (docs/your-data.md)."
        )
    return lines


def _named(found: "PersonFound") -> str:
    """The spellings in the data that are known, and how many are not."""
    rest = found["others"] - len(found["spellings"])
    return ", ".join(map(repr, found["spellings"])) + (f" and {rest} more" if rest else "")


def _who(found: "PersonFound") -> str:
    """Who is meant, for who gave the id."""
    if found["hashed"]:
        return str(found["request"])
    return f"line {found['line']}" if found["line"] else repr(found["subject"])


def _some(lines: list[str], what: str) -> list[str]:
    rest = len(lines) - _SHOWN
    return lines if rest <= 0 else [*lines[:_SHOWN], f"  and {rest} more {what} (all with --json)"]


def requests(
    state: Annotated[
        str,
        typer.Option(
            "--state",
            help="pending, awaiting approval, held, erasing, uncertified, deferred, "
            "erased, held out only, not trained on yet, nothing found, withdrawal "
            "or rejection.",
        ),
    ] = "",
    due_within: Annotated[
        float | None,
        typer.Option(
            "--due-within",
            metavar="DAYS",
            help="Open ones due in so many days; 0: those that are late.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List requests by state and by the days they have left."""
    opened = open_workspace(workspace)
    from flows.use_cases.finding import look_alikes
    from flows.use_cases.requests import list_requests

    listed = list_requests(opened, state, due_within)
    open_ones = {r["id"] for r in listed if r["days_left"] is not None}
    near = (
        look_alikes(opened, [r for r in opened.requests.pending() if r.request_id in open_ones])
        if open_ones
        else {}
    )
    asked = {r.subject for r in opened.requests.pending() if not r.record} if near else set()
    others = {request: len(found - asked) for request, found in near.items()}
    document: RequestsDocument = {
        "requests": [{**r, "others": others.get(r["id"])} for r in listed]
    }
    show(
        as_json,
        document,
        _render_requests,
    )


def approve(
    request_ids: Annotated[list[str], typer.Argument(metavar="REQUEST...")],
    by: ByOption,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let requests be carried out, where [erasure] needs_approval asks for it."""
    opened = open_workspace(workspace)
    from flows.use_cases.requests import approve as act

    act(opened, request_ids, by)
    _done(
        as_json,
        {"approved": request_ids},
        f"{len(request_ids)} request(s) approved. Next: `s3t erase`.",
    )


def withdraw(
    request_id: RequestArgument,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            help=(
                "The role that takes it back for the person; never the person's own name or id: it "
                "stands in the ledger."
            ),
        ),
    ] = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Close a request that was taken back. It ends in a signed document, and nothing is erased."""
    opened = open_workspace(workspace)
    from flows.use_cases.requests import withdraw as act

    act(opened, request_id, by)
    _closed(opened, request_id, "withdrawal", as_json)


def reject(
    request_id: RequestArgument,
    basis: BasisOption,
    reason: ReasonOption,
    by: ByOption,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Close a request without an erasure, on a legal basis. It ends in a signed document."""
    opened = open_workspace(workspace)
    from flows.use_cases.requests import reject as act

    act(opened, request_id, basis, reason, by)
    _closed(opened, request_id, "rejection", as_json)


def hold(
    basis: BasisOption,
    reason: ReasonOption,
    by: ByOption,
    subject: SubjectArgument = None,
    stdin: StdinOption = False,
    file: FileOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """A legal hold: no erasure of this subject until `s3t release`."""
    opened = open_workspace(workspace)
    from flows.use_cases.requests import hold as act

    given = _one_id(opened, subject, stdin, file)
    waiting = act(opened, given, basis, reason, by)
    found: list[PersonFound] = [
        {**each, "line": None if subject else 1} for each in _found(opened, [given], [], "", [""])
    ]
    document: HeldDocument = {"held": True, "waiting": waiting, "found": found}
    show(as_json, document, _render_held)


def _render_held(d: "HeldDocument") -> list[str]:
    """Another spelling of the id is another person's, as far as anybody can say: who is meant may
    stay without it."""
    lines = [f"Held. {d['waiting']} open request(s) wait; their deadlines run on."]
    for found in d["found"]:
        if found["found"] == "not told":
            lines.append(f"  Whether they are in the data is not told: {found['why']}.")
        elif found["found"] != "in the data" and not found["erased"]:
            near = (
                f", but nearly so: {_named(found)}"
                if found["spellings"]
                else (f", but {found['others']} nearly so" if found["found"] == "nearly" else "")
            )
            lines += [
                f"  not in the data as {'it is' if found['line'] else _who(found) + ' is'} "
                f"spelt{near}",
                "  The hold stops erasures of that spelling alone; hold the one in the data as "
                "well.",
            ]
        elif found["others"]:
            lines.append(
                f"  {found['others']} other spelling(s) of it are there too, and are not held"
                + (f": {_named(found)}" if found["spellings"] else "")
            )
    return lines


def release(
    by: ByOption,
    subject: SubjectArgument = None,
    stdin: StdinOption = False,
    file: FileOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a legal hold: what was asked for is carried out by the next erase run."""
    opened = open_workspace(workspace)
    from flows.use_cases.requests import lift_hold as act

    act(opened, _one_id(opened, subject, stdin, file), by)
    _done(as_json, {"held": False}, "Released. Next: `s3t erase`, if something is pending.")


def lift(
    by: ByOption,
    subject: SubjectArgument = None,
    stdin: StdinOption = False,
    file: FileOption = None,
    record: RecordOption = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a person who returned off the suppression list: later ingests may hold them again."""
    opened = open_workspace(workspace)
    from flows.use_cases.requests import lift as act

    act(opened, _one_id(opened, subject, stdin, file), record, by)
    _done(as_json, {"lifted": True}, "Lifted. The next `s3t ingest` takes their rows again.")


COMMANDS = (request, requests, approve, withdraw, reject, hold, release, lift)


def told_beside(certificates: "list[Certified]") -> list[str]:
    """What an erasure says beside its outcomes: of whom nothing was there but a look-alike, who was
    erased before, and who is left under another spelling. Counts and requests, never ids."""
    nobody = [c for c in certificates if c["outcome"] == "nothing found"]
    near = [
        f"  nothing found, but a nearly equal id is there: {c['request']}; ask again with the "
        "spelling in the data"
        for c in nobody
        if c["others"]
    ]
    before = [
        f"  nothing found, already erased by {c['erased_before']['request']} on "
        f"{c['erased_before']['time'][:10]}: {c['request']}"
        for c in nobody
        if c["erased_before"]
    ]
    stay = [
        f"  {told_others(c['others'])}: {c['request']}; if that is the same person, ask for it as "
        "well"
        for c in certificates
        if c["others"] and c["outcome"] != "nothing found"
    ]
    return [
        *_some(near, "with nearly equal ids"),
        *_some(before, "that were erased before"),
        *_some(stay, "with other spellings that stay"),
    ]


def told_others(others: int) -> str:
    """How many other spellings of an id there are."""
    return f"{others} other spelling{'s stay' if others > 1 else ' stays'} in the data"


def _done(as_json: bool, document: Mapping[str, object], told: str) -> None:
    show(as_json, document, lambda _: [told])


def _closed(opened: "Workspace", request_id: str, kind: str, as_json: bool) -> None:
    path = str(opened.certificates_dir / f"{request_id}.json")
    show(
        as_json,
        {"request": request_id, "closed": kind, "document": path},
        lambda d: [f"{request_id} is closed by a {kind}.", f"  document: {d['document']}"],
    )


def _render_requests(d: "RequestsDocument") -> list[str]:
    if not d["requests"]:
        return ["No request to list."]
    return [
        f"{r['id']}  {told_outcome(r['state'], r['rows']):<28}  due {r['due']}"
        + (
            ""
            if r["days_left"] is None
            else f"  {r['days_left']:.1f} days left"
            if r["days_left"] >= 0
            else f"  LATE by {-r['days_left']:.1f} days"
        )
        + (f"  {told_others(r['others'])}" if r["others"] else "")
        for r in d["requests"]
    ]


def _ids(opened: "Workspace", stdin: bool, file: str | None, column: str = "") -> dict[str, int]:
    """The ids that do not stand on the command line, with the line of the file where each
    stands."""
    if stdin and file is not None:
        raise UsageError("expected ids from one place, got --stdin and --file; leave one out")
    if not stdin and file is None:
        if column:
            raise UsageError("expected --column beside --file or --stdin, got it alone")
        return {}
    from flows.use_cases.id_files import read_ids

    found = read_ids("-" if stdin or file is None else file, column, opened.config.data.subject)
    if found.column or found.repeated or found.blank:
        print(f"s3t: {found.told()}.", file=sys.stderr)
    return found.lines


def _one_id(opened: "Workspace", subject: str | None, stdin: bool, file: str | None) -> str:
    """The one id that hold, release and lift are about. Raises UsageError."""
    given = [*([] if subject is None else [subject]), *_ids(opened, stdin, file)]
    if len(given) != 1:
        raise UsageError(
            f"expected one subject id, with --stdin, --file or as an argument, got {len(given)}"
        )
    return given[0]
