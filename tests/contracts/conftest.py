"""The two worlds of every contract: fakes in memory, and a workspace's own parts on disk."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from flows.adapters.exports import ExportedFiles, digests_of, write_record
from flows.use_cases.taking import take_requests
from flows.workspace import access, stores
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.canonical import sha256_hex
from s3t_core.config import Config
from s3t_core.domain import DatasetVersion, DeletionRequest, SliceId, SliceVersion
from s3t_core.erasure.dataset_json import dataset_to_json
from s3t_core.erasure.state import ExportRecord
from s3t_core.erasure.vocabulary import Event
from s3t_core.ports import (
    Activations,
    Certificates,
    Exports,
    Ledger,
    Needles,
    Registry,
    RequestBook,
    StageArtifacts,
)
from s3t_core.times import parse_time, rfc3339
from tests.fakes import (
    FakeActivations,
    FakeCertificates,
    FakeExports,
    FakeLedger,
    FakeNeedles,
    FakeRegistry,
    FakeRequestBook,
    FakeStages,
)

DATASET = DatasetVersion(
    version="0" * 32 + ".dir",
    shards=1,
    slices=1,
    slice_versions={SliceId(0, 0): SliceVersion("1" * 64, 1, "2" * 32)},
    held_out=SliceVersion("3" * 64, 0, "4" * 32),
)


@dataclass(frozen=True)
class Ports:
    """The ports of an erasure that need neither data nor a model, and how a world is filled from
    outside them: `ask` takes requests of the people named, `keep_stages` puts artifacts into the
    store, `keep_activations` those of slices, and `digest_of(request, id)` is how the ledger knows
    an id as given."""

    ledger: Ledger
    requests: RequestBook
    stages: StageArtifacts
    activations: Activations
    needles: Needles
    certificates: Certificates
    registry: Callable[[], Registry]
    exports: Exports
    export: Callable[[str], ExportRecord]
    move_export: Callable[[ExportRecord], None]
    export_is_there: Callable[[ExportRecord], bool]
    ask: Callable[..., list[DeletionRequest]]
    keep_stages: Callable[[list[bytes]], list[str]]
    keep_activations: Callable[[list[str]], None]
    kept_activations: Callable[[], set[str]]
    digest_of: Callable[[str, str], str]
    document_of: Callable[[str], bytes | None]
    suppressed: Callable[[], set[str]]


def _guard(_: str) -> None: ...


def _began() -> list[Event]:
    return [
        {"type": "workspace", "time": "2026-01-01T00:00:00Z"},
        {
            "type": "dataset",
            "time": "2026-01-01T00:00:00Z",
            "cause": "ingest",
            "dataset": dataset_to_json(DATASET),
        },
    ]


def _fakes() -> Ports:
    ledger = FakeLedger(_guard)
    ledger.take(*_began())
    requests, stages = FakeRequestBook(ledger, _guard), FakeStages([], _guard)
    activations, needles = FakeActivations(_guard), FakeNeedles(_guard)
    certificates, registry = FakeCertificates(_guard), FakeRegistry(_guard)
    exports = FakeExports(_guard)

    def ask(*people: str) -> list[DeletionRequest]:
        taken = []
        for person in people:
            number = f"req-{len(requests.requests)}"
            time = ledger.state().time
            due = rfc3339(parse_time(time) + timedelta(days=30))
            suppression = f"suppressed {person}"
            request = DeletionRequest(number, person, "", suppression, "commitment", time, due)
            requests.requests[number] = request
            needles.files[number] = [person]
            ledger.take(
                {
                    "type": "request",
                    "time": time,
                    "request": number,
                    "subject": person,
                    "record": "",
                    "suppression": suppression,
                    "commitment": "commitment",
                    "salt": "",
                    "due": due,
                    "near": [],
                    "asked_by": "id",
                    "forms": [],
                    "once": "",
                    "id_rule": [],
                    "ids": [f"digest of {person}"],
                }
            )
            taken.append(request)
        return taken

    def export(name: str) -> ExportRecord:
        exports.there.add(name)
        return ExportRecord(name, "release-1", NOW, "elsewhere", {})

    def keep_stages(artifacts: list[bytes]) -> list[str]:
        digests = [sha256_hex(artifact) for artifact in artifacts]
        stages.held |= set(digests)
        return digests

    return Ports(
        ledger=ledger,
        requests=requests,
        stages=stages,
        activations=activations,
        needles=needles,
        certificates=certificates,
        registry=lambda: registry,
        exports=exports,
        export=export,
        move_export=lambda record: exports.there.discard(record.export),
        export_is_there=lambda record: record.export in exports.there,
        ask=ask,
        keep_stages=keep_stages,
        keep_activations=activations.slices.update,
        kept_activations=lambda: set(activations.slices),
        digest_of=lambda _, given: f"digest of {given}",
        document_of=certificates.files.get,
        suppressed=lambda: set(requests.suppression),
    )


NOW = "2026-01-01T00:00:00Z"


def _exported(folder: Path, name: str) -> ExportRecord:
    """A directory as an export leaves it."""
    place = folder / name
    place.mkdir()
    (place / "model.safetensors").write_bytes(name.encode())
    write_record(place, {"export": name})
    return ExportRecord(name, "release-1", NOW, str(place), digests_of(place))


def _write_states(path: Path) -> None:
    path.write_bytes(b"states")


def _real(folder: Path) -> Ports:
    config = Config.model_validate({"data": {"labels": ["a", "b"]}})
    place = create_workspace(folder / "w", config)
    with access.changing(place) as held:
        stores.pin_settings(place, held)
    place = Workspace(place.root)
    place.database.now = None  # what is told here is told of other times

    def keep_activations(digests: list[str]) -> None:
        place.activations.allow([*digests, *kept()])
        for digest in digests:
            seal = place.activations.put(
                digest, "key", 1, lambda path: path.write_bytes(b"states") and None, lambda _: True
            )
            assert seal is not None
            seal()

    def kept() -> set[str]:
        root = place.activations.root
        return {path.parent.name for path in root.glob("*/*.seal")}

    def document_of(request: str) -> bytes | None:
        path = place.certificates.path_of(request)
        return path.read_bytes() if path.exists() else None

    def suppressed() -> set[str]:
        with place.database.transaction() as connection:
            rows = connection.exec_driver_sql("SELECT digest FROM suppression")
            return {str(row[0]) for row in rows}

    return Ports(
        ledger=place.ledger,
        requests=place.requests,
        stages=place.store,
        activations=place.activations,
        needles=place.needles,
        certificates=place.certificates,
        registry=lambda: place.registry,
        exports=ExportedFiles(place.keys.sealing),
        export=lambda name: _exported(folder, name),
        move_export=lambda record: Path(record.place).rename(f"{record.place}-moved") and None,
        export_is_there=lambda record: Path(record.place, "model.safetensors").exists(),
        ask=lambda *people: [
            place.requests.get([taken.request_id])[0]
            for taken in take_requests(place, list(people))
        ],
        keep_stages=lambda artifacts: [
            place.store.put(f"key {i}", artifact) for i, artifact in enumerate(artifacts)
        ],
        keep_activations=keep_activations,
        kept_activations=kept,
        digest_of=place.needles.digest_of,
        document_of=document_of,
        suppressed=suppressed,
    )


@pytest.fixture(params=["fake", "real"])
def ports(request: pytest.FixtureRequest, tmp_path: Path) -> Ports:
    return _fakes() if request.param == "fake" else _real(tmp_path)
