"""Pieces of evidence held against each other: what each says of requests, and of which history of
which ledger it is. Each is valid by itself; together they may still tell two stories.

| two pieces | |
|---|---|
| show two closing documents of one request | a contradiction |
| are of one ledger, and of two roots at one size | a contradiction |
| are a bundle, and what shows a document by which its ledger had closed a request by then, which the bundle lacks | a contradiction: a bundle has every one |
| are of one ledger at two sizes, of which the later does not continue the earlier | a contradiction: whoever has the entries can tell, an exported ledger of the later size or a longer one |
| the same, and nothing that was given can tell | undecided: name the exported ledger too, or a bundle that was made with the earlier checkpoint |
| a closing document, and what is later and shows the request as open | undecided: what was cut off, or is recorded later still |
"""  # noqa: E501

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

from flows.adapters.keys import read_key
from flows.use_cases.evidence_files import (
    MOST_LEDGER_BYTES,
    content_of,
    documents_in,
    is_bundle,
    is_ledger,
    summary_of,
)
from s3t_core.canonical import sha256_hex
from s3t_core.erasure.checkpoint import Checkpoint, checkpoint_of, read_export
from s3t_core.erasure.dsse import verify_signed
from s3t_core.erasure.evidence_documents import CHECKPOINT_TYPE
from s3t_core.erasure.ledger import fold
from s3t_core.erasure.merkle import continues, leaf_hash, roots_at
from s3t_core.erasure.offline import DOCUMENT, GivenKeys, KeyFile, NotValid, read_files
from s3t_core.erasure.report_document import REPORT_TYPE, parse_report
from s3t_core.errors import GuaranteeError


@dataclass(frozen=True, order=True)
class Head:
    """A head of a ledger: its name, how many entries it had, and its root, hex."""

    ledger: str
    size: int
    root: str


@dataclass(frozen=True)
class Shown:
    """What a piece of evidence shows of requests. `documents`: the SHA-256 of each one's closing
    document, hex; `signed`: over how many ledger entries a document was signed. `still_open`: the
    requests that are open then; `has_all`: whether it has every closing document of the ledger up
    to there, `tells_all`: whether it tells of every request. `of`: the head that a piece is of as a
    whole (no document is), and all it shows to lead to that one: `heads`. `leaves`: of an exported
    ledger, the hash of each entry, and `closed`, by request, how many entries there were once it
    was closed; `proofs`: of a bundle, by the size of an earlier ledger, that this one continues
    it."""

    name: str
    documents: Mapping[str, str] = field(default_factory=dict)
    signed: Mapping[str, int] = field(default_factory=dict)
    still_open: frozenset[str] = frozenset()
    has_all: bool = False
    is_bundle: bool = False
    tells_all: bool = False
    heads: frozenset[Head] = frozenset()
    of: Head | None = None
    leaves: Sequence[bytes] = field(default=(), repr=False)
    closed: Mapping[str, int] = field(default_factory=dict, repr=False)
    proofs: Mapping[int, list[bytes]] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> int:
        """How many entries the ledger had then."""
        return self.of.size if self.of else 0

    def proves(self, earlier: Head) -> bool:
        """Whether a proof that it brings shows that its ledger continues that one."""
        proof = self.proofs.get(earlier.size)
        if proof is None or self.of is None or self.of.ledger != earlier.ledger:
            return False
        roots = bytes.fromhex(earlier.root), bytes.fromhex(self.of.root)
        return continues(roots[0], earlier.size, roots[1], self.of.size, proof)

    def lacks(self, request: str, size: int) -> bool:
        """Whether it was made later than when the ledger had so many entries, and has no closing
        document of the request."""
        lists_all = self.has_all or self.tells_all
        is_open = request in self.still_open or (lists_all and request not in self.documents)
        return self.size > size and is_open


def all_shown(paths: Sequence[Path], public_keys: Sequence[Path]) -> tuple[list[Shown], set[Path]]:
    """What each piece of evidence shows, and those that show nothing: what is valid by itself
    shows something."""
    keys, shown, silent = [read_key(p) for p in public_keys], [], set()
    for path in paths:
        for file in documents_in(path):
            try:
                shown.append(_shown_by(file, keys))
            except (GuaranteeError, NotValid, OSError, KeyError, ValueError, TypeError):
                silent.add(path)
    return shown, silent


def contradictions(shown: Sequence[Shown]) -> list[str]:
    """What two pieces of evidence cannot both be right about, in sentences: requests of which they
    show more than one closing document, and ledgers of which they show more than one history."""
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
    ] + [*_two_histories(shown), *_contradicted(shown), *_left_out(shown)]


def _two_histories(shown: Sequence[Shown]) -> Iterator[str]:
    named: dict[tuple[str, int], dict[str, str]] = {}
    for each in shown:
        for head in sorted(each.heads):
            named.setdefault((head.ledger, head.size), {}).setdefault(head.root, each.name)
    for each in shown:
        sizes = [size for name, size in named if each.of and name == each.of.ledger]
        for size, root in roots_at(each.leaves, sizes).items():
            named[each.leaves[0].hex(), size].setdefault(root.hex(), each.name)
    for (ledger, size), roots in sorted(named.items()):
        if len(roots) > 1:
            yield (
                f"expected one history of ledger {ledger[:16]}..., got {len(roots)} that differ "
                f"within its first {size} entries: in {', '.join(sorted(roots.values()))}"
            )


def _contradicted(shown: Sequence[Shown]) -> Iterator[str]:
    """Bundles that bring a proof for the size of an earlier piece, which shows another one."""
    for each in shown:
        for other in (o.of for o in shown if o.of and each.of and o.of.ledger == each.of.ledger):
            if other.size in each.proofs and not each.proves(other):
                yield (
                    f"expected {each.name} to continue the ledger of {other.size} entries that was "
                    "given, got one that does not: it was cut or rewritten"
                )


def _left_out(shown: Sequence[Shown]) -> Iterator[str]:
    """Bundles that lack documents by which their ledger had closed a request by then."""
    for bundle, other in permutations(shown, 2):
        if not bundle.is_bundle or not bundle.of or not other.of:
            continue
        missing = {
            request
            for request in other.documents.keys() - bundle.documents.keys()
            if other.of.ledger == bundle.of.ledger
            and other.closed.get(request, other.size) <= bundle.size
        }
        if missing:
            yield (
                f"expected {bundle.name} to have the document of every request that the first "
                f"{bundle.size} entries of its ledger closed, got none of {len(missing)} that "
                f"{other.name} shows; ask the controller for a bundle of now"
            )


def unproven(shown: Sequence[Shown]) -> list[str]:
    """Pieces of two times of a ledger of which nothing that was given shows that the later one
    continues the earlier."""
    return [
        f"{earlier.name} and {later.name} are of {earlier.size} and {later.size} entries, and "
        "nothing here shows that the one continues the other; name the exported ledger beside them "
        "(`s3t audit --ledger`), or a bundle made with the earlier checkpoint"
        for one, other in combinations(shown, 2)
        for earlier, later in [sorted((one, other), key=lambda each: each.size)]
        if earlier.of and later.of and earlier.of.ledger == later.of.ledger
        if earlier.size < later.size and not _is_shown(earlier.of, later.of, shown)
    ]


def _is_shown(earlier: Head, later: Head, shown: Iterable[Shown]) -> bool:
    """Whether something shows both as one history: an exported ledger that is long enough (that it
    holds neither would be a contradiction), what has both, or a proof."""
    return any(
        (each.leaves and each.of and each.of.ledger == later.ledger and each.size >= later.size)
        or {earlier, later} <= each.heads
        or (each.of == later and each.proves(earlier))
        for each in shown
    )


def unrecorded(shown: Sequence[Shown]) -> list[str]:
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


def leaves_in(exported: bytes) -> list[bytes]:
    """The hash of each entry of an exported ledger, 32 bytes each."""
    return [leaf_hash(entry) for entry in exported.split(b"\n")[1:-1]]


def _head_of(checkpoint: Checkpoint) -> Head:
    return Head(checkpoint.ledger, checkpoint.head.size, checkpoint.head.root)


def _head_said(envelope: dict[str, Any]) -> Head:
    """The head that a document names. The bundle that it is in was checked."""
    said = json.loads(base64.b64decode(envelope["payload"]))["predicate"]["ledger"]
    return Head(said["name"], said["size"], said["root"])


def _named(requests: Iterable[str]) -> set[str]:
    return {f"certificates/{request}.json" for request in requests}


def _proofs_in(files: Mapping[str, bytes]) -> dict[int, list[bytes]]:
    earlier = json.loads(files["proofs.json"])["earlier"]
    return {each["size"]: [bytes.fromhex(h) for h in each["consistency"]] for each in earlier}


def _shown_by(file: Path, keys: list[KeyFile]) -> Shown:
    publics = GivenKeys(keys).by_id.values()
    if is_bundle(file):
        files = read_files(file)
        signed, _ = verify_signed(files["checkpoint.json"], *publics)
        documents = {
            Path(name).stem: sha256_hex(data)
            for name, data in files.items()
            if DOCUMENT.fullmatch(name)
        }
        of = _head_of(checkpoint_of(signed))
        heads = frozenset(_head_said(json.loads(files[n])) for n in files if n in _named(documents))
        return Shown(
            file.name,
            documents,
            has_all=True,
            is_bundle=True,
            of=of,
            heads=heads | {of},
            proofs=_proofs_in(files),
        )
    if is_ledger(file):
        exported = content_of(file, MOST_LEDGER_BYTES)
        checkpoint, events, _ = read_export(exported, *publics)
        of, state = _head_of(checkpoint), fold(events)
        return Shown(
            file.name,
            state.documents,
            has_all=True,
            of=of,
            heads=frozenset({of}),
            leaves=leaves_in(exported),
            closed={
                e["request"]: at
                for at, e in enumerate(events, 1)
                if e["type"] in ("certified", "closed")
            },
        )
    content = content_of(file)
    statement, _ = verify_signed(content, *publics)
    if statement.get("predicateType") == REPORT_TYPE:
        report = parse_report(statement)
        documents = {r.id: r.document_sha256 for r in report.requests if r.document_sha256}
        still_open = frozenset(r.id for r in report.requests if not r.document_sha256)
        proof = report.ledger
        of = Head(proof.name, proof.size, proof.root)
        before = Head(proof.name, proof.size_before, proof.root_before)
        heads = frozenset({of, before} if proof.size_before else {of})
        return Shown(
            file.name,
            documents,
            still_open=still_open,
            tells_all=not proof.size_before,
            of=of,
            heads=heads,
        )
    _, summary = summary_of(statement)
    if statement.get("predicateType") == CHECKPOINT_TYPE:
        of = _head_of(checkpoint_of(statement))
        return Shown(file.name, of=of, heads=frozenset({of}))
    request, said = summary["request"], statement["predicate"]["ledger"]
    head = Head(said["name"], said["size"], said["root"])
    return Shown(
        file.name,
        {request: sha256_hex(content)},
        {request: head.size},
        heads=frozenset({head}),
    )
