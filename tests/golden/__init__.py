"""Bytes that stay as they are: stage keys, ledger entries, documents, under keys, times and a
profile written here.

Whoever holds a certificate, a checkpoint or a stage made yesterday must be able to use it tomorrow,
so these change only on purpose: with a new METHOD_VERSION, or a new version of a document's type.
Then `python -m tests.golden` writes them anew, and the commit says why.

Nothing here is computed by torch, and no file, clock or random number has a part in it: they hold
on any machine.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from s3t_core.canonical import canonical_json, sha256_hex
from s3t_core.config import Config
from s3t_core.domain import DatasetVersion, Score, SliceId, SliceVersion, as_accuracy
from s3t_core.erasure.bundle import make_bundle
from s3t_core.erasure.certificate import make_statement
from s3t_core.erasure.checkpoint import Checkpoint, export_ledger, sign_checkpoint
from s3t_core.erasure.closing import closing_of
from s3t_core.erasure.dsse import sign
from s3t_core.erasure.evidence_documents import CLOSING_TYPE, Subject
from s3t_core.erasure.ledger import head_of, leaf_of
from s3t_core.erasure.merkle import leaf_hash
from s3t_core.erasure.report import build_report
from s3t_core.erasure.report_document import REPORT_TYPE
from s3t_core.erasure.state import State
from s3t_core.erasure.vocabulary import Event
from s3t_core.keys import WorkspaceKeys, key_check
from s3t_core.learning.recipe import NumericProfile, Recipe, make_recipe, wanted
from s3t_core.learning.release import FORMAT, recipe_to_json
from s3t_core.release_json import release_to_json
from s3t_core.snapshot import form_digest, near_digests, suppression_digest
from tests.unit.erasure.test_executor import World, make_world
from tests.unit.erasure.test_rules import HISTORY, LEGAL, NOW, A, B, _release

HERE = Path(__file__).parent
SIGNING = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
KEYS = WorkspaceKeys.derive(b"\x05" * 32)
PROFILE = NumericProfile(
    torch="2.13.0",
    transformers="5.0",
    peft="0.18",
    cpu_capability="AVX512",
    threads=1,
    bfloat16=True,
    tokenizers="0.22",
    pillow="12.0",
    safetensors="0.7",
    numpy="2.3",
    accelerate="1.11",
    cpu_vendor="GenuineIntel",
    fingerprint="f" * 64,
)
_AT = "2026-03-01T00:00:00Z"


def _recipe(**changes: Any) -> Recipe:
    document: dict[str, Any] = {
        "data": {"text": "what", "label": "kind", "subject": "who", "labels": ["good", "bad"]},
        "system": {"name": "golden", "shards": 2, "slices": 3, "budget": 2},
        "backbone": {"model": "minilm", "max_length": 16},
    }
    for section, values in changes.items():
        document.setdefault(section, {}).update(values)
    return make_recipe(Config.model_validate(document), "minilm", "b" * 64, "t" * 64, 6, PROFILE)


def _dataset() -> DatasetVersion:
    """Two shards of three slices, of which one is empty."""
    files = {
        SliceId(s, i): SliceVersion(f"{s}{i}" * 32, 0 if (s, i) == (1, 2) else 3, f"md5 {s}{i}")
        for s in range(2)
        for i in range(3)
    }
    return DatasetVersion("golden.dir", 2, 3, files, SliceVersion("h" * 64, 2, "md5 held out"))


def stage_keys() -> Iterable[bytes]:
    """A line per recipe and stage: which recipe, where the stage stands, its seed, its key."""
    recipes = {
        "as s3t init writes it": _recipe(),
        "rank 4, seed 1": _recipe(adapter={"rank": 4}, training={"seed": 1}),
        "float32": _recipe(training={"dtype": "float32"}),
        "another text length": _recipe(backbone={"max_length": 32}),
    }
    for name, recipe in recipes.items():
        for stage in wanted(recipe, [(0, 1, 2), (1, 2, 0)], _dataset()).stages:
            yield canonical_json(
                {
                    "recipe": name,
                    "shard": stage.shard,
                    "prefix": list(stage.prefix),
                    "seed": recipe.seed(stage.shard, stage.prefix),
                    "key": stage.key,
                }
            )


def release_documents() -> Iterable[bytes]:
    """The document in a version's files, whose digest the registry vouches for."""
    yield canonical_json(
        {
            "format": FORMAT,
            "release": release_to_json(_release("golden", A, B)),
            "recipe": recipe_to_json(_recipe()),
            "serving": {"name": "golden", "staleness_seconds": 1.0},
        }
    )


def pseudonyms() -> Iterable[bytes]:
    """What stands for a person and a record in the ledger and its tables, under the workspace key
    above."""
    yield canonical_json({"key_check": key_check(KEYS)})
    for subject, record in (
        ("person-001", ""),
        ("person-001", "r1"),
        ("Ada Lovelace", ""),
        ("1001.0", ""),
    ):
        yield canonical_json(
            {
                "subject": subject,
                "record": record,
                "suppression": suppression_digest(KEYS, subject, record),
                "near": sorted(near_digests(KEYS, subject, subject, record, ())),
                "form": form_digest(KEYS, subject),
            }
        )


def events() -> Iterable[bytes]:
    """Entries of every kind, those that the rules refuse among them: their bytes are what is
    hashed."""
    for _, part in HISTORY:
        yield from (leaf_of({"time": NOW, **event}) for event in part)
    for event, _ in LEGAL.values():
        yield leaf_of({"time": NOW, **event})


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


class _OneWay:
    """Fills the port `Evaluator` as it was when these bytes were written: one score, of votes."""

    def score(self, *_: object) -> Score | None:
        return as_accuracy(0.5)


def _story() -> World:
    """An approved request of a subject and one of a record are erased together; one is withdrawn,
    one is rejected under a hold, a person returns; then a second erasure, of a subject in the
    held-out rows alone. One stays open."""
    world = make_world()
    world.ports = replace(world.ports, evaluator=_OneWay())
    world.ports.certificates.key = SIGNING  # type: ignore[attr-defined]
    world.ask("req-1", "s01-2")
    world.ask("req-2", "s12-0", "r0")
    world.tell(type="approved", request="req-1", by="officer")
    world.eraser().run()
    world.ask("req-3", "s10-1")
    _close(world, "req-3", "withdrawal", "", "")
    world.ask("req-4", "s11-1")
    world.tell(
        type="hold",
        state="set",
        subject="s11-1",
        id_rule=[],
        basis="17(3)(e)",
        reason="a claim",
        by="counsel",
    )
    world.tell(type="hold", state="released", subject="s11-1", by="counsel")
    _close(world, "req-4", "rejection", "12(5)", "asked for the ninth time")
    world.tell(type="lifted", suppression="suppressed s01-2 ", kind="subject", by="officer")
    world.ask("req-5", "only-held-out")
    world.eraser().run()
    world.ask("req-6", "s02-1")
    return world


def _close(world: World, request: str, kind: str, basis: str, reason: str) -> None:
    ledger, book = world.ledger, world.requests
    name = leaf_hash(leaf_of(ledger.events[0])).hex()
    predicate = closing_of(
        book.requests[request],
        kind,
        ledger.state().time,
        "officer",
        basis,
        reason,
        name,
        ledger.head(),
    )
    subject = Subject(name=f"ledger {name}", digest={"sha256": ledger.head().root})
    document = sign(make_statement(predicate, subject, CLOSING_TYPE), SIGNING)
    world.ports.certificates.files[request] = document  # type: ignore[attr-defined]
    world.tell(
        type="closed",
        request=request,
        kind=kind,
        certificate=sha256_hex(document),
        by="officer",
        basis=basis,
        reason=reason,
    )
    book.requests[request] = replace(book.requests[request], certificate=sha256_hex(document))


def _checkpoint(told: list[Event], size: int = 0) -> Checkpoint:
    leaves = [leaf_hash(leaf_of(e)) for e in told][: size or None]
    return Checkpoint(leaves[0].hex(), head_of(leaves), _AT)


def ledger() -> Iterable[bytes]:
    """The story as an exported ledger: a signed checkpoint, then every entry."""
    told = _story().ledger.events
    yield from export_ledger(
        sign_checkpoint(_checkpoint(told), SIGNING), [leaf_of(e) for e in told]
    ).splitlines()


def documents() -> Iterable[bytes]:
    """Certificates, a withdrawal and a rejection, signed, and the proofs of the bundle around
    them."""
    world = _story()
    files, told = dict(world.ports.certificates.files), world.ledger.events  # type: ignore[attr-defined]
    yield from (files[name] for name in sorted(files))
    checkpoint = _checkpoint(told)
    erased = {name: files[name] for name in ("req-1", "req-2", "req-5")}
    bundle = make_bundle(
        certificates=erased,
        checkpoint=checkpoint,
        signed=sign_checkpoint(checkpoint, SIGNING),
        events=told,
        earlier=[_checkpoint(told, 5)],
    )
    yield canonical_json(json.loads(bundle["proofs.json"]))


def report() -> Iterable[bytes]:
    """The report about the story, and the envelope that signs it."""
    world = _story()
    files = world.ports.certificates.files  # type: ignore[attr-defined]
    made = build_report(
        "golden",
        world.ledger.events,
        files,
        None,
        datetime(2026, 3, 1, tzinfo=UTC),
        _budget_of,
        1,
        {"s3t": "golden"},
    )
    yield canonical_json(made.model_dump(mode="json"))
    yield sign(
        make_statement(
            made,
            Subject(name="golden", digest={"sha256": "0" * 64}),
            REPORT_TYPE,
        ),
        SIGNING,
    )


GOLDEN: dict[str, Callable[[], Iterable[bytes]]] = {
    "stage_keys": stage_keys,
    "release_documents": release_documents,
    "pseudonyms": pseudonyms,
    "events": events,
    "ledger": ledger,
    "documents": documents,
    "report": report,
}
"""What makes the lines of each file `NAME.jsonl` beside this one."""


def path_of(name: str) -> Path:
    """Where the lines of that name are kept."""
    return HERE / f"{name}.jsonl"
