"""Verify evidence offline: no torch, no Prefect, no MLflow, no network. The public key comes from
the auditor."""

import errno
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.adapters.keys import read_key
from s3t_core.canonical import sha256_hex
from s3t_core.erasure.certificate import check_statement
from s3t_core.erasure.checkpoint import checkpoint_of, read_export
from s3t_core.erasure.closing import check_closing
from s3t_core.erasure.dsse import verify_signed
from s3t_core.erasure.evidence_documents import CHECKPOINT_TYPE, CLOSING_TYPE
from s3t_core.erasure.ledger import fold
from s3t_core.erasure.offline import GivenKeys, KeyFile, NotValid, check_bundle, read_files
from s3t_core.erasure.report_document import REPORT_TYPE, parse_report
from s3t_core.erasure.state import State
from s3t_core.errors import CertificateError, GuaranteeError, UsageError
from s3t_core.files import read_regular

_MOST_BYTES = 64 * 2**20
_MOST_LEDGER_BYTES = 4 * 2**30
_LEDGER = ".jsonl"
_REQUEST = re.compile(r"req-[0-9a-z]")


def verify_path(
    path: Path, public_key: Path | Sequence[Path], earlier: Path | None = None
) -> dict[str, Any]:
    """{"valid", "problems", "undecided", "certificates", "keys"} and more by kind: a certificate, a
    directory of them, a report, a checkpoint, an evidence bundle (.zip) or an exported ledger
    (.jsonl). `earlier`: a checkpoint that the bundle must continue. Several public keys, when the
    controller changed theirs.

    "undecided" are documents that are signed, but by a key that was replaced: alone they prove
    nothing, because whoever got hold of that key since could have made them. Then "valid" is false,
    and "problems" may be empty.
    """
    if not path.exists():
        raise UsageError(
            "expected a certificate, a directory of them, a bundle or a ledger, got nothing at "
            f"{path.name}"
        )
    keys = [read_key(p) for p in ([public_key] if isinstance(public_key, Path) else public_key)]
    if earlier is not None and not _is_bundle(path):
        raise UsageError("expected a bundle (.zip) with --checkpoint, got another kind of file")
    if _is_bundle(path):
        return {"undecided": [], **_verify_bundle(path, keys, earlier)}
    try:
        given = GivenKeys(keys)
    except NotValid as error:
        return _found(keys, problems=[str(error)])
    return (
        _verify_ledger(path, keys, given)
        if path.suffix == _LEDGER
        else _verify_files(path, keys, given)
    )


def _is_bundle(path: Path) -> bool:
    """Also one that was unpacked, into a directory of such a name."""
    return path.suffix == ".zip"


def verify_paths(
    paths: Sequence[Path], public_key: Path | Sequence[Path], earlier: Path | None = None
) -> dict[str, Any]:
    """`verify_path` of each. For one path it is that one's document; for several the lists of all,
    "files" with each one's own document, and in "between" what only shows beside each other: a
    document of a request that was given twice, as two files, is a copy. A file that is named twice
    is checked once."""
    once = list({p.resolve(): p for p in paths}.values())
    keys = [public_key] if isinstance(public_key, Path) else list(public_key)
    found = [
        {
            "path": str(p),
            **verify_path(p, public_key, earlier if len(once) == 1 or _is_bundle(p) else None),
        }
        for p in once
    ]
    if earlier is not None and len(once) > 1 and not any(map(_is_bundle, once)):
        raise UsageError("expected a bundle (.zip) with --checkpoint, got other kinds of files")
    if len(found) == 1:
        return {k: v for k, v in found[0].items() if k != "path"}
    requests = [
        c["request"]
        for p, each in zip(once, found, strict=True)
        if not _is_bundle(p)
        for c in each["certificates"]
    ]
    between = [
        f"expected one document of {r}, got {requests.count(r)}: the others are copies"
        for r in sorted(set(requests))
        if requests.count(r) > 1
    ]
    shown, silent = _all_shown(once, keys)
    between += _contradictions(shown)
    between += [
        f"expected {p.name} to show what it is of, got nothing that can be held against the others"
        for p, each in zip(once, found, strict=True)
        if p in silent and each["valid"]
    ]
    recorded = _recorded(once, found, shown)
    found = [_settled(each, recorded) for each in found]
    joined = {
        kind: [x for each in found for x in each.get(kind, [])]
        for kind in ("problems", "undecided", "certificates", "checkpoints", "reports")
    }
    joined["problems"] += between
    unrecorded = _unrecorded(shown)
    joined["undecided"] += unrecorded
    return {
        "valid": all(each["valid"] for each in found) and not between and not unrecorded,
        **joined,
        "between": between,
        "keys": sorted({k for each in found for k in each["keys"]}),
        "files": found,
    }


@dataclass(frozen=True)
class _Shown:
    """What a piece of evidence shows of requests. `documents`: the SHA-256 of each one's closing
    document, hex; `signed`: over how many ledger entries a document was signed. `size`: how many
    entries the evidence itself is of, `still_open` the requests that are open then; `has_all`:
    whether it has every closing document of the ledger up to there."""

    name: str
    documents: Mapping[str, str]
    signed: Mapping[str, int] = field(default_factory=dict)
    size: int = 0
    still_open: frozenset[str] = frozenset()
    has_all: bool = False

    def lacks(self, request: str, size: int) -> bool:
        """Whether it was made later than when the ledger had so many entries, and has no closing
        document of the request."""
        is_open = request in self.still_open or (self.has_all and request not in self.documents)
        return self.size > size and is_open


def _all_shown(
    paths: Sequence[Path], public_keys: Sequence[Path]
) -> tuple[list[_Shown], set[Path]]:
    """What each piece of evidence shows, and those that show nothing: what is valid by itself
    shows something."""
    keys, shown, silent = [read_key(p) for p in public_keys], [], set()
    for path in paths:
        is_folder = path.is_dir() and not _is_bundle(path) and path.suffix != _LEDGER
        for file in sorted(path.glob("*.json")) if is_folder else [path]:
            try:
                shown.append(_shown_by(file, keys))
            except (GuaranteeError, NotValid, OSError, KeyError):
                silent.add(path)
    return shown, silent


def _recorded(
    paths: Sequence[Path], found: Sequence[dict[str, object]], shown: Iterable[_Shown]
) -> set[tuple[str, str]]:
    """Requests, each with the SHA-256 of its closing document, that a bundle or a ledger has which
    is valid: whoever signed a document that is in it signed it while the key was in use."""
    valid = {p.name for p, each in zip(paths, found, strict=True) if each["valid"]}
    valid -= {p.name for p, each in zip(paths, found, strict=True) if not each["valid"]}
    whole = (each for each in shown if each.has_all and each.name in valid)
    return {item for each in whole for item in each.documents.items()}


def _settled(found: dict[str, Any], recorded: set[tuple[str, str]]) -> dict[str, Any]:
    """The same, without the doubts about documents that are recorded."""
    doubts = {
        f"{each['file']}: {each['undecided']}"
        for each in found["certificates"]
        if each.get("undecided") and (each["request"], each["sha256"]) in recorded
    }
    undecided = [doubt for doubt in found["undecided"] if doubt not in doubts]
    certificates = [
        {**each, "undecided": ""}
        if f"{each.get('file')}: {each.get('undecided')}" in doubts
        else each
        for each in found["certificates"]
    ]
    valid = found["valid"] or bool(doubts and not undecided and not found["problems"])
    return {**found, "valid": valid, "undecided": undecided, "certificates": certificates}


def _contradictions(shown: Iterable[_Shown]) -> list[str]:
    """Requests of which pieces of evidence (documents, bundles, reports, ledgers) show more than
    one closing document."""
    found: dict[str, dict[str, list[str]]] = {}
    for each in shown:
        for request, digest in each.documents.items():
            found.setdefault(request, {}).setdefault(digest, []).append(each.name)
    return [
        f"expected one closing document of {request} in all that was given, got {len(by)}: "
        + "; ".join(
            f"{digest[:16]}... in {', '.join(names)}" for digest, names in sorted(by.items())
        )
        for request, by in sorted(found.items())
        if len(by) > 1
    ]


def _unrecorded(shown: Sequence[_Shown]) -> list[str]:
    """Documents of requests that a ledger, a bundle or a report which was made later shows as
    open."""
    return [
        f"{document.name} is of a request that {later.name}, which was made later, shows as open: "
        "what it tells of was cut off and never came to be, unless it was recorded later still; "
        "ask the controller for the ledger or a bundle of now"
        for document in shown
        for request, size in document.signed.items()
        for later in shown
        if later.lacks(request, size)
    ]


def _shown_by(file: Path, keys: list[KeyFile]) -> _Shown:
    publics = GivenKeys(keys).by_id.values()
    if _is_bundle(file):
        files = read_files(file)
        signed, _ = verify_signed(files["checkpoint.json"], *publics)
        documents = {
            Path(name).stem: sha256_hex(data)
            for name, data in files.items()
            if name.startswith("certificates/")
        }
        size = checkpoint_of(signed).head.size
        return _Shown(file.name, documents, size=size, has_all=True)
    if file.suffix == _LEDGER:
        checkpoint, events, _ = read_export(_content(file, _MOST_LEDGER_BYTES), *publics)
        state = fold(events)
        return _Shown(file.name, state.documents, size=checkpoint.head.size, has_all=True)
    content = _content(file, _MOST_BYTES)
    statement, _ = verify_signed(content, *publics)
    if statement.get("predicateType") == REPORT_TYPE:
        report = parse_report(statement)
        documents = {r.id: r.document_sha256 for r in report.requests if r.document_sha256}
        still_open = frozenset(r.id for r in report.requests if not r.document_sha256)
        return _Shown(file.name, documents, size=report.ledger.size, still_open=still_open)
    kind, summary = _summary_of(statement)
    if kind != "certificates":
        return _Shown(file.name, {})
    request = summary["request"]
    size = statement["predicate"]["ledger"].get("size", 0)
    return _Shown(file.name, {request: sha256_hex(content)}, {request: size})


def _found(keys: list[KeyFile], **found: Any) -> dict[str, Any]:
    """What is told of evidence: valid unless there is a problem or something undecided."""
    document = {
        "problems": [],
        "undecided": [],
        "certificates": [],
        "keys": [k.id for k in keys],
        **found,
    }
    return {"valid": not document["problems"] and not document["undecided"], **document}


def _verify_bundle(path: Path, keys: list[KeyFile], earlier: Path | None) -> dict[str, object]:
    try:
        return check_bundle(read_files(path), keys, read_regular(earlier) if earlier else None)
    except NotValid as error:
        return _found(keys, problems=[str(error)])
    except OSError as error:
        raise UsageError(f"expected a readable checkpoint, got {type(error).__name__}") from None


def _verify_ledger(path: Path, keys: list[KeyFile], given: GivenKeys) -> dict[str, object]:
    """The whole ledger shows by itself which key signed when, and that each vouched for the
    next."""
    try:
        checkpoint, events, signer = read_export(
            _content(path, _MOST_LEDGER_BYTES), *given.by_id.values()
        )
        state = fold(events)
        _check_ledger_keys(state, signer, given)
    except GuaranteeError as error:
        return _found(keys, problems=[f"{path.name}: {error}"])
    return _found(
        keys,
        ledger={
            "size": checkpoint.head.size,
            "root": checkpoint.head.root,
            "signed": checkpoint.time,
            "requests": len(state.requests),
            "certified": len(state.certified),
            "clock_corrected": state.corrected,
        },
    )


def state_of_ledger(path: Path, public_keys: Sequence[Path]) -> State:
    """What an exported ledger says, once `verify_path` found it valid. Raises GuaranteeError."""
    given = GivenKeys([read_key(p) for p in public_keys])
    _, entries, _ = read_export(_content(path, _MOST_LEDGER_BYTES), *given.by_id.values())
    return fold(entries)


def _check_ledger_keys(state: State, signer: str, given: GivenKeys) -> None:
    if state.signing and signer != state.signing:
        raise CertificateError(
            f"expected the checkpoint to be signed by the key that signs by this ledger, "
            f"{state.signing[:16]}..., got one by key {signer[:16]}..., which it replaced"
        )
    try:
        given.check_chain(signer, ((c.old, c.new, not c.vouched) for c in state.key_changes))
    except NotValid as error:
        raise CertificateError(str(error)) from None
    strange = sorted(given.by_id.keys() - {signer} - {c.old for c in state.key_changes})
    if strange:
        raise CertificateError(
            f"expected a ledger that says how key {strange[0][:16]}... came or went, got one that "
            "does not know it: it was cut before that, and signed with a key that is replaced, or "
            "that key is not this controller's"
        )


def _verify_files(path: Path, keys: list[KeyFile], given: GivenKeys) -> dict[str, Any]:
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UsageError("expected certificates (*.json) in the directory, got none")
    problems, undecided, seen = _unread(path, files), [], set[str]()
    found: dict[str, list[dict[str, Any]]] = {"certificates": [], "checkpoints": [], "reports": []}
    for file in files:
        try:
            content = _content(file, _MOST_BYTES)
            statement, signer = verify_signed(content, *given.by_id.values())
            kind, summary = _summary_of(statement)
            _check_name(file, summary.get("request"), alone=not path.is_dir())
            if summary.get("request") in seen:
                raise CertificateError(
                    f"expected one document of {summary['request']}, got another: it is a copy"
                )
            seen |= {summary["request"]} if "request" in summary else set()
        except CertificateError as error:
            problems.append(f"{file.name}: {error}")
            continue
        doubt = given.doubt_of(signer)
        undecided += [f"{file.name}: {doubt}"] if doubt else []
        digest = {"sha256": sha256_hex(content)} if kind == "certificates" else {}
        found[kind].append(
            {"file": file.name, **summary, **digest, "key": signer, "undecided": doubt}
        )
    return _found(keys, problems=problems, undecided=undecided, **found)


def _unread(path: Path, files: list[Path]) -> list[str]:
    """What of a directory looks like a document and is none of the files that are read."""
    unread = (
        sum(p.suffix.casefold() == ".json" for p in path.rglob("*") if p not in files)
        if path.is_dir()
        else 0
    )
    return (
        [
            f"expected documents as *.json in the directory itself, got {unread} deeper in it or "
            "with another ending, which were not read; name their directory too"
        ]
        if unread
        else []
    )


def _summary_of(statement: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Which kind of evidence a statement is, and what it says. Raises CertificateError."""
    kind = statement.get("predicateType")
    if kind == CHECKPOINT_TYPE:
        read = checkpoint_of(statement)
        return "checkpoints", {"size": read.head.size, "root": read.head.root, "signed": read.time}
    if kind == CLOSING_TYPE:
        closing = check_closing(statement)
        return "certificates", {
            "request": closing["request"]["id"],
            "closed": closing["closing"]["kind"],
            "certified": closing["closing"]["time"],
        }
    if kind == REPORT_TYPE:
        report = parse_report(statement)
        return "reports", {**report.period.model_dump(), **report.summary.model_dump()}
    predicate = check_statement(statement)
    return "certificates", {
        "request": predicate["request"]["id"],
        "closed": predicate["found"]["outcome"],
        "rows": predicate["found"]["rows"],
        "certified": predicate["times"]["certified"],
        "versions": predicate["versions"],
        "found": predicate["found"],
        "deactivated": len(predicate["deactivated"]),
    }


def _check_name(file: Path, request: str | None, alone: bool) -> None:
    """A closing document under another request's name would be taken for that request's, and in a
    directory of them so would one under a name that only looks like one. One that is given alone
    may have a name of its own, which is told. Raises CertificateError."""
    named = not alone or _REQUEST.match(file.name.casefold())
    if request is not None and named and file.name != f"{request}.json":
        raise CertificateError(
            f"expected the document of the request that the file is named by, got that of "
            f"{request}: it is a renamed copy"
        )


def _content(file: Path, most: int) -> bytes:
    try:
        return read_regular(file, most)
    except OSError as error:
        got = (
            f"a file of more than {most} bytes"
            if error.errno == errno.EFBIG
            else (f"what is no file that can be read ({error.strerror or type(error).__name__})")
        )
        raise CertificateError(f"expected evidence, got {got}") from None
