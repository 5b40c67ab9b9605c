"""Verify evidence offline: no torch, no Prefect, no MLflow, no network. The public key comes from
the auditor."""

import base64
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from flows.adapters.keys import read_key
from flows.use_cases.evidence_files import (
    MOST_LEDGER_BYTES,
    content_of,
    documents_in,
    is_bundle,
    is_folder,
    is_ledger,
    summary_of,
)
from flows.use_cases.evidence_together import (
    Shown,
    all_shown,
    contradictions,
    leaves_in,
    unproven,
    unrecorded,
)
from s3t_core.canonical import sha256_hex
from s3t_core.erasure.checkpoint import (
    check_continues,
    checkpoint_of,
    read_export,
    read_signed_checkpoint,
)
from s3t_core.erasure.dsse import verify_signed
from s3t_core.erasure.ledger import fold
from s3t_core.erasure.offline import GivenKeys, KeyFile, NotValid, check_bundle, read_files
from s3t_core.erasure.state import State
from s3t_core.errors import CertificateError, GuaranteeError, UsageError
from s3t_core.files import read_regular

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
    if earlier is not None:
        _check_is_checkpoint(earlier)
    if earlier is not None and not _may_continue(path):
        raise _no_continuation()
    if is_bundle(path):
        return {"undecided": [], **_verify_bundle(path, keys, earlier)}
    try:
        given = GivenKeys(keys)
    except NotValid as error:
        return _found(keys, problems=[str(error)])
    return (
        _verify_ledger(path, keys, given, earlier)
        if is_ledger(path)
        else _verify_files(path, keys, given)
    )


def _may_continue(path: Path) -> bool:
    """Whether it can show that it continues an earlier checkpoint."""
    return is_bundle(path) or is_ledger(path)


def _check_is_checkpoint(earlier: Path) -> None:
    """Raises UsageError for a file that is no checkpoint, whoever signed it: it says nothing of the
    evidence."""
    try:
        payload = json.loads(base64.b64decode(json.loads(read_regular(earlier))["payload"]))
        checkpoint_of(payload)
    except OSError as error:
        raise UsageError(f"expected a readable checkpoint, got {type(error).__name__}") from None
    except (ValueError, KeyError, TypeError, RecursionError, GuaranteeError):
        kind = (
            "a bundle" if is_bundle(earlier) else "an exported ledger" if is_ledger(earlier) else ""
        )
        raise UsageError(
            f"expected a checkpoint (.s3t/checkpoint.json, or one of those in [erasure] "
            f"log_checkpoints_to) as --checkpoint, got {kind or 'another file'}"
        ) from None


def _no_continuation() -> UsageError:
    return UsageError(
        "expected a bundle (.zip) or an exported ledger (.jsonl) with --checkpoint, got other "
        "kinds of files"
    )


def _evidence_in(folder: Path) -> list[Path]:
    """Bundles and exported ledgers among a directory's documents."""
    return [p for p in sorted(folder.iterdir()) if is_bundle(p) or is_ledger(p)]


def verify_paths(
    paths: Sequence[Path], public_key: Path | Sequence[Path], earlier: Path | None = None
) -> dict[str, Any]:
    """`verify_path` of each. For one path it is that one's document; for several the lists of all,
    "files" with each one's own document, in "between" what only shows beside each other (a document
    of a request that was given twice, as two files, is a copy), and in "undecided_between" what
    nobody can tell by them. A bundle or a ledger in a directory is one that was named. A file that
    is named twice is checked once."""
    within = [f for p in paths if is_folder(p) for f in _evidence_in(p)]
    once = list({p.resolve(): p for p in [*paths, *within]}.values())
    keys = [public_key] if isinstance(public_key, Path) else list(public_key)
    found = [
        {
            "path": str(p),
            **verify_path(p, public_key, earlier if len(once) == 1 or _may_continue(p) else None),
        }
        for p in once
    ]
    if earlier is not None and not any(map(_may_continue, once)):
        raise _no_continuation()
    if len(found) == 1 and not is_folder(once[0]):
        return {k: v for k, v in found[0].items() if k != "path"}
    requests = [
        c["request"]
        for p, each in zip(once, found, strict=True)
        if not is_bundle(p)
        for c in each["certificates"]
        if len(found) > 1  # of one directory it has said so itself
    ]
    between = [
        f"expected one document of {r}, got {requests.count(r)}: the others are copies"
        for r in sorted(set(requests))
        if requests.count(r) > 1
    ]
    shown, silent = all_shown(once, keys)
    between += contradictions(shown)
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
    unsettled = [*unrecorded(shown), *unproven(shown)]
    joined["undecided"] += unsettled
    return {
        "valid": all(each["valid"] for each in found) and not between and not unsettled,
        **joined,
        "between": between,
        "undecided_between": unsettled,
        "keys": sorted({k for each in found for k in each["keys"]}),
        "files": found,
    }


def _recorded(
    paths: Sequence[Path], found: Sequence[dict[str, object]], shown: Iterable[Shown]
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


def _verify_ledger(
    path: Path, keys: list[KeyFile], given: GivenKeys, earlier: Path | None
) -> dict[str, object]:
    """The whole ledger shows by itself which key signed when, and that each vouched for the
    next."""
    try:
        if earlier is not None:
            _check_continues(path, earlier, given)
        checkpoint, events, signer = read_export(
            content_of(path, MOST_LEDGER_BYTES), *given.by_id.values()
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


def _check_continues(path: Path, earlier: Path, given: GivenKeys) -> None:
    """Raises GuaranteeError where an exported ledger does not continue a checkpoint."""
    kept, _ = read_signed_checkpoint(content_of(earlier), *given.by_id.values())
    check_continues(kept, leaves_in(content_of(path, MOST_LEDGER_BYTES)))


def state_of_ledger(path: Path, public_keys: Sequence[Path]) -> State:
    """What an exported ledger says, once `verify_path` found it valid. Raises GuaranteeError."""
    given = GivenKeys([read_key(p) for p in public_keys])
    _, entries, _ = read_export(content_of(path, MOST_LEDGER_BYTES), *given.by_id.values())
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
    files = documents_in(path)
    if not files:
        raise UsageError("expected certificates (*.json) in the directory, got none")
    problems, undecided, seen = _unread(path, files), [], set[str]()
    found: dict[str, list[dict[str, Any]]] = {"certificates": [], "checkpoints": [], "reports": []}
    for file in files:
        try:
            content = content_of(file)
            statement, signer = verify_signed(content, *given.by_id.values())
            kind, summary = summary_of(statement)
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
