"""The files of a registered version: where MLflow keeps them, which of them decide its answers, and
whether they are the ones that the ledger recorded."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from s3t_core.canonical import digest_of, sha256_hex
from s3t_core.domain import Release
from s3t_core.erasure.state import VersionRecord
from s3t_core.errors import GuaranteeError
from s3t_core.files import remove_tree, sync_directory
from s3t_core.learning.store import StageStore
from s3t_core.ports import Published

RELEASE = "release"
STAGE_FILE = ".safetensors"
_COMPILED = "__pycache__"
_NOTE = "registered_model_meta"
MODEL_FOLDER = "artifacts"
"""Where in a logged model's folder MLflow keeps what it loads."""
RELEASE_FOLDER = f"{MODEL_FOLDER}/artifacts/{RELEASE}"
"""Where in it the release document and the stages lie."""


class ModelFiles(Protocol):
    """Where a kind of registry keeps the files of versions, and how what is deleted there goes for
    good. Methods that ask MLflow raise MlflowException."""

    def places(self) -> list[str]:
        """Where else than in the workspace files of its runs and versions lie, or ever lay:
        buckets' URLs, directories. The present place is the last."""

    def location(self) -> str:
        """Where they lie now, in the words that the registry has for it; "" for nowhere yet."""

    def of(self, model_id: str) -> dict[str, bytes]:
        """The files of a logged model by their place in it, stage files left out; none of one
        without an id."""

    def fetched(self, model_id: str, loading: Path) -> AbstractContextManager[Path]:
        """The directory with all of a logged model's files: there, or, until the block ends, in
        `loading`, where they were brought to."""

    def remove_compiled(self, model_id: str) -> None:
        """Remove what Python compiled of a logged model's code, where this machine may load it."""

    def add_before(self, folder: Path, release: Release) -> None:
        """Put into `folder`, beside the release document, what is to be logged with it."""

    def add_after(self, model_id: str, release: Release) -> None:
        """Put into a logged model, before it becomes a version, what was not logged with it. Also
        mends what is there. Raises StorageError."""

    def check_reach(self, published: Published) -> None:
        """That an erasure would reach what was published. Raises WorkspaceError."""

    def remove_leftovers(self, keep: Iterable[VersionRecord]) -> bool:
        """Remove every file that belongs to none of these versions; whether there were any. Raises
        StorageError."""

    def collect(self, models: list[str]) -> None:
        """Remove the bytes of what is deleted; `models` were deleted just now."""


def place_stages(
    store: StageStore,
    folder: Path,
    release: Release,
) -> None:
    """Put the stage files of the replicas that answer into `folder`, nothing else."""
    for replica in (release.serving(shard) for shard in release.shards()):
        for stage in replica.stages if replica else ():
            store.place(stage.digest, folder)
    sync_directory(folder)


def stages_of(release: Release) -> set[str]:
    """Digests of the stages of the replicas that answer."""
    serving = [release.serving(shard) for shard in release.shards()]
    return {stage.digest for replica in serving if replica for stage in replica.stages}


def files_in(folder: Path) -> dict[str, bytes]:
    """The files under a folder by their place in it. Left out are stage files, and what loading
    leaves there, whoever loads: MLflow's note of the name and number, and what Python compiles of
    the code (`check_files` removes that)."""
    files = (
        p
        for p in folder.rglob("*")
        if p.is_file() and p.suffix != STAGE_FILE and p.name != _NOTE and _COMPILED not in p.parts
    )
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def stages_by_model(versions: Iterable[VersionRecord]) -> dict[str, set[str]]:
    """Digests of the stages that lie in each version's logged model, by its id."""
    return {v.model_id: stages_of(v.release) for v in versions}


def is_part(name: str, kept: Mapping[str, set[str]]) -> bool:
    """Whether a file of that name below the experiment's place belongs to one of the models that
    are `kept`, by id with the digests of their stages."""
    parts = name.split("/")
    if len(parts) < 3 or parts[0] != "models" or parts[1] not in kept:
        return False
    return not name.endswith(STAGE_FILE) or parts[-1].removesuffix(STAGE_FILE) in kept[parts[1]]


def remove_compiled(folder: Path) -> None:
    """Python would run compiled code that lies beside the source, whoever put it there."""
    for compiled in list(folder.rglob(_COMPILED)):
        remove_tree(compiled)


def digest_of_files(files: Mapping[str, bytes]) -> str:
    """SHA-256 over the names of files and the digests of what is in them, hex."""
    return digest_of({name: sha256_hex(files[name]) for name in sorted(files)})


def check_digest(
    record: VersionRecord,
    digest: str,
    there: bool,
) -> None:
    """That a version's files, if they are `there`, have the recorded digest. Raises
    GuaranteeError."""
    if digest != record.document:
        raise GuaranteeError(
            f"expected the files of version {record.version} as the ledger recorded them, got "
            f"{'others' if there else 'none'}; somebody changed them, or another command has just "
            "moved on: run `s3t erase`, which puts it right"
        )
