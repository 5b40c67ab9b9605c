"""The commands about requests: take, list, approve, hold, extend, withdraw, reject, let a person
return, and carry out what is pending. What they say stands in telling.py."""

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, cast

import typer

from flows.cli.base import JsonOption, WorkspaceOption, open_workspace, run_flow, show
from flows.cli.telling import render_erasure, render_held, render_requests, render_taken
from s3t_core.errors import RequestsLeftOpen, UsageError

if TYPE_CHECKING:
    from flows.use_cases.documents import ErasureDocument, HeldDocument
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
RecordOption = Annotated[
    str,
    typer.Option(
        "--record",
        metavar="ID",
        help=(
            "Only this record of the subject. Better with -: its id is the line that the standard "
            "input has, below the subject's with --stdin."
        ),
    ),
]
BasisOption = Annotated[
    str,
    typer.Option(
        "--basis", help="GDPR article: 12(2), (5), (6), 17(1), 17(3)(a) to (e), or other."
    ),
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
            "lower case without blanks) when it is carried out. May stand several times; - reads "
            "them from the standard input, one a line."
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
    from flows.use_cases.taking import ask, render_ended

    lines, record = _ids_and_record(opened, stdin, file, column, record)
    hashed = _read("-") if hashed == ["-"] else hashed
    given = list(dict.fromkeys([*(subjects or []), *lines]))
    if hashed and (given or record):
        raise UsageError(
            "expected ids or hashes of ids in one command, got both (or --record beside a hash); "
            "ask twice"
        )
    document = ask(opened, given, hashed or [], record, key)
    for each in document["found"]:
        typed = each["subject"] in (subjects or [])
        each["line"] = None if typed else lines.get(each["subject"])
    show(as_json, document, render_taken)
    ended = render_ended(document, record)
    if ended:
        print(f"s3t: {ended}; ask anew with another --key", file=sys.stderr)
        sys.exit(1)


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
    from flows.use_cases.requests import list_with_look_alikes

    document = list_with_look_alikes(opened, state, due_within)
    show(as_json, document, render_requests)


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


def extend(
    request_id: RequestArgument,
    reason: ReasonOption,
    by: ByOption,
    months: Annotated[
        int, typer.Option("--months", help="By how many months: 1 or 2, once (GDPR 12(3)).")
    ] = 2,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a request more time, once, before it is due. Tell whoever asked, with the reason."""
    opened = open_workspace(workspace)
    from flows.use_cases.requests import extend as act

    due = act(opened, request_id, reason, by, months)
    _done(
        as_json,
        {"request": request_id, "due": due},
        f"{request_id} is due {due} now. Tell whoever asked, with the reason, within a month of "
        "when their request came.",
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
    from flows.use_cases.finding import people_found
    from flows.use_cases.requests import hold as act

    given = _one_id(opened, subject, stdin, file)
    waiting = act(opened, given, basis, reason, by)
    found = people_found(opened, [given])
    for each in found:
        each["line"] = None if subject else 1
    document: HeldDocument = {"held": True, "waiting": waiting, "found": found}
    show(as_json, document, render_held)


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

    lines, record = _ids_and_record(opened, stdin, file, "", record)
    act(opened, _one_of(subject, lines), record, by)
    _done(as_json, {"lifted": True}, "Lifted. The next `s3t ingest` takes their rows again.")


def erase(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Carry out every pending request, now: cut over, rewrite, destroy, measure, scan, certify."""
    opened = open_workspace(workspace)
    left_open: RequestsLeftOpen | None = None
    try:
        done: ErasureDocument = run_flow(opened, "erase")
    except RequestsLeftOpen as error:
        left_open, done = error, cast("ErasureDocument", error.done)
    from flows.use_cases.next_steps import after_erasure

    step = after_erasure(opened.ledger.state(), opened.config, done["retrain"])
    done["next"] = {"command": step.command, "why": step.why}
    show(as_json, done, render_erasure)
    if done["retrain"] == "failed":
        print(
            f"s3t: the erasure is complete, but the full retrain failed: {done['problem']}",
            file=sys.stderr,
        )
    if left_open is not None:
        print(f"s3t: {left_open}", file=sys.stderr)
    if left_open is not None or done["retrain"] == "failed":
        sys.exit(1)


COMMANDS = (request, requests, approve, extend, withdraw, reject, hold, release, lift, erase)


def _done(as_json: bool, document: Mapping[str, object], text: str) -> None:
    show(as_json, document, lambda _: [text])


def _closed(opened: "Workspace", request_id: str, kind: str, as_json: bool) -> None:
    path = str(opened.certificates_dir / f"{request_id}.json")
    show(
        as_json,
        {"request": request_id, "closed": kind, "document": path},
        lambda d: [f"{request_id} is closed by a {kind}.", f"  document: {d['document']}"],
    )


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
        print(f"s3t: {found.in_words()}.", file=sys.stderr)
    return found.lines


def _one_id(opened: "Workspace", subject: str | None, stdin: bool, file: str | None) -> str:
    """The one id that hold, release and lift are about. Raises UsageError."""
    return _one_of(subject, _ids(opened, stdin, file))


def _ids_and_record(
    opened: "Workspace", stdin: bool, file: str | None, column: str, record: str
) -> tuple[dict[str, int], str]:
    """The ids that do not stand on the command line, and the record's, which need not either: with
    -, it is the last line of the standard input. Raises UsageError."""
    if record != "-":
        return _ids(opened, stdin, file, column), record
    if file == "-" or column:
        raise UsageError(
            "expected --record - beside --stdin, --file FILE or an id, got --file - or --column; "
            "give the subject's id and the record's in two lines, with --stdin"
        )
    wanted, found = 2 if stdin else 1, _read("-")
    if len(found) != wanted:
        raise UsageError(
            f"expected {wanted} line(s) from the standard input, with the record's id as the last "
            f"one, got {len(found)}"
        )
    lines = {found[0]: 1} if stdin else _ids(opened, False, file)
    return lines, found[-1]


def _read(file: str) -> list[str]:
    """What stands in the lines of a file, as often as it stands there."""
    from flows.use_cases.id_files import read_ids

    found = read_ids(file, "", "")
    return [*found.ids, *found.ids[-1:] * found.repeated]


def _one_of(subject: str | None, lines: Iterable[str]) -> str:
    given = [*([] if subject is None else [subject]), *lines]
    if len(given) != 1:
        raise UsageError(
            f"expected one subject id, with --stdin, --file or as an argument, got {len(given)}"
        )
    return given[0]
