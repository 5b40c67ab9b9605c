"""What is logged as a model and becomes a version: the release document, the code that answers,
what it needs, and an example that is nobody's row."""

import contextlib
import io
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flows.adapters.registry.connection import Connection, pages, where_there
from flows.adapters.registry.experiment import OwnExperiment
from flows.adapters.registry.files import (
    MODEL_FOLDER,
    RELEASE,
    ModelFiles,
    digest_of_files,
    files_in,
    stages_of,
)
from flows.adapters.registry.runs import KIND_TAG
from s3t_core.canonical import canonical_json, sha256_hex
from s3t_core.domain import Release
from s3t_core.erasure.state import VersionRecord
from s3t_core.erasure.versions import DOCUMENT_TAG, RELEASE_TAG
from s3t_core.errors import StorageError
from s3t_core.files import write_atomically
from s3t_core.learning.release import FORMAT, kind_of
from s3t_core.learning.store import LocalStageStore
from s3t_core.ports import Published
from s3t_core.release_json import release_to_json

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature
    from mlflow.models.model import ModelInfo

EXAMPLE = ("words",)
"""What a version gives as an example of its input: nobody's row, and too short to be looked for as
one."""
UNPINNED = {"pinned": False}
"""The settings that whoever loads a version may change (served_model.py)."""
_CODE = Path(__file__).parent.with_name("champion.py")
_NEEDED = (
    "mlflow",
    "torch",
    "transformers",
    "peft",
    "safetensors",
    "cryptography",
    "pyarrow",
    "rfc8785",
)


class Logged(NamedTuple):
    """A model that was logged just now. `document`: SHA-256 of its release document."""

    model: "ModelInfo"
    run_id: str
    document: str


class LoggedModels:
    """Models that are logged for releases, before and after they are versions."""

    def __init__(
        self,
        connection: Connection,
        own: OwnExperiment,
        files: ModelFiles,
        serving: Mapping[str, float | str],
        temporary: Path,
    ) -> None:
        """`serving`: staleness and declared offline use in seconds and the column of texts, for the
        code that answers. `temporary`: through which directory MLflow copies."""
        self._connection, self._own, self._files = connection, own, files
        self._serving, self._temporary = dict(serving), temporary

    def log(
        self,
        release: Release,
        recipe: dict[str, object],
        moved: VersionRecord | None,
    ) -> Logged:
        """Log a model for a release. `moved`: the version that it takes the place of, whose times
        hold on. Raises MlflowException, StorageError."""
        import mlflow

        from flows.adapters.mlflow_context import made_by_nobody

        document = self._document_of(release, recipe, moved)
        with (
            _temporary_in(self._temporary),
            tempfile.TemporaryDirectory(prefix="release-") as folder,
        ):
            write_atomically(Path(folder, RELEASE) / "release.json", document)
            self._files.add_before(Path(folder, RELEASE), release)
            with (
                made_by_nobody(),
                warnings.catch_warnings(),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                warnings.simplefilter("ignore")  # of type hints; the signature is as we want it
                with mlflow.start_run(
                    experiment_id=self._own.number(),
                    run_name=f"release {release.release_id}",
                    tags={KIND_TAG: "release", RELEASE_TAG: release.release_id},
                ) as run:
                    model = self._log(Path(folder, RELEASE), kind_of(recipe))
            self._files.add_after(str(model.model_id), release)
            self._check_logged(str(model.model_id), document)
        return Logged(
            model=model,
            run_id=str(run.info.run_id),
            document=sha256_hex(document),
        )

    def delete(self, keep: set[str]) -> list[str]:
        """Delete every logged model but those of the ids `keep`; returns the ids of what is
        gone."""
        numbers, client = self._own.numbers(), self._connection.client
        found = pages(lambda token: client.search_logged_models(numbers, page_token=token))
        gone = [model.model_id for model in found if model.model_id not in keep]
        for model_id in gone:
            client.delete_logged_model(model_id)
        return gone

    def document(self, model_id: str) -> bytes | None:
        """The release document of a logged model, None without one."""
        files = self._files.of(model_id)
        return next((files[n] for n in files if Path(n).name == "release.json"), None)

    def digest(self, model_id: str) -> str:
        """Digest of all that decides what a version answers: the release document, the code that is
        loaded, what names it, what it needs. Stage files are named by their own digests."""
        return digest_of_files(self._files.of(model_id))

    def is_named_rightly(self, version: "ModelVersion", model_id: str) -> bool:
        """Whether everything that MLflow would find a version's files by names the logged model of
        that id, here."""
        here = f"{self._files.location()}/models/{model_id}/{MODEL_FOLDER}"
        client = self._connection.client
        with where_there():
            logged = client.get_logged_model(model_id).artifact_location
            address = client.get_model_version_download_uri(version.name, version.version)
            return version.source == f"models:/{model_id}" and address == here and logged == here
        return False

    def published(self, version: "ModelVersion") -> Published:
        """A version as it is here. Its `document` is the digest of its files, "" where its tag
        names another release document, or the registry other files."""
        model_id = model_id_of(version)
        same = sha256_hex(self.document(model_id) or b"") == version.tags.get(DOCUMENT_TAG)
        same = same and self.is_named_rightly(version, model_id)
        digest = self.digest(model_id) if same else ""
        return Published(
            version=str(version.version),
            run_id=str(version.run_id),
            model_id=model_id,
            document=digest,
        )

    def is_whole(self, record: VersionRecord, published: Published) -> bool:
        """Whether the files that the registry gives out for a version say what the ledger says, and
        answer with its stages."""
        import mlflow

        with (
            _temporary_in(self._temporary),
            tempfile.TemporaryDirectory(prefix="check-") as folder,
        ):
            mlflow.artifacts.download_artifacts(
                f"models:/{published.model_id}", dst_path=str(Path(folder, MODEL_FOLDER))
            )
            document = next(Path(folder).rglob("release.json"), None)
            if document is None:
                return False
            stages = LocalStageStore(document.parent)
            return (
                json.loads(document.read_bytes())["release"] == release_to_json(record.release)
                and all(stages.holds(digest) for digest in stages_of(record.release))
                and digest_of_files(files_in(Path(folder))) == published.document
            )

    def _document_of(
        self,
        release: Release,
        recipe: dict[str, object],
        moved: VersionRecord | None,
    ) -> bytes:
        serving = {"name": self._connection.name, **self._serving}
        if moved is not None:
            serving |= {"staleness_seconds": moved.staleness, "offline_seconds": moved.offline}
            serving.pop("combine", None)
            if moved.combine != "votes":
                serving["combine"] = moved.combine
        return canonical_json(
            {
                "format": FORMAT,
                "release": release_to_json(release),
                "recipe": recipe,
                "serving": serving,
            }
        )

    def _log(self, release: Path, kind: str) -> "ModelInfo":
        """As `mlflow.pyfunc.log_model` does, but MLflow does not load what it logs to try the
        example: it answers only when it is whole and the alias names it. No schema of the input: by
        one, MLflow would refuse lists, or cut a frame to its first column before the version sees
        it."""
        from types import SimpleNamespace

        import mlflow
        from mlflow.models import Model

        def save(validate_serving_input: bool, **parts: object) -> None:  # noqa: ARG001  # what Model.log alone looks at
            mlflow.pyfunc.save_model(**parts)

        logged: ModelInfo = Model.log(
            artifact_path=None,
            name="release",
            flavor=SimpleNamespace(
                save_model=save,
                __name__="mlflow.pyfunc",
            ),
            validate_serving_input=False,
            python_model=str(_CODE),
            artifacts={RELEASE: str(release)},
            pip_requirements=_requirements(),
            signature=_signature(kind, int(self._serving.get("max_new_tokens", 0))),
            input_example=list(EXAMPLE),
            model_config=dict(UNPINNED),
        )
        return logged

    def _check_logged(self, model_id: str, document: bytes) -> None:
        """That what decides the answers came there as it is here: the ledger is about to vouch for
        it."""
        there = {Path(name).name: data for name, data in self._files.of(model_id).items()}
        if (there.get("release.json"), there.get(_CODE.name)) != (document, _CODE.read_bytes()):
            raise StorageError(
                "expected the registry to hold the version's files as they were sent, got others; "
                "see who else writes to its artifacts, then run the command again"
            )


def _signature(kind: str, most: int) -> "ModelSignature":
    """What a version of a task answers to each text. `most`: new tokens of one that writes, where
    whoever asks says nothing."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec
    from mlflow.types.schema import Array, Map, ParamSchema, ParamSpec

    probabilities = ColSpec(Map(DataType.double), "probabilities")
    answers: dict[str, list[ColSpec | TensorSpec]] = {
        "classification": [ColSpec(DataType.string, "label"), probabilities],
        "multilabel": [ColSpec(Array(DataType.string), "labels"), probabilities],
        "regression": [ColSpec(DataType.double, "value")],
        "generation": [
            ColSpec(DataType.string, "text"),
            ColSpec(DataType.string, "finish"),
            ColSpec(DataType.long, "tokens"),
            ColSpec(DataType.long, "prompt_tokens"),
        ],
    }
    asked = [
        ParamSpec("max_new_tokens", DataType.long, most),
        ParamSpec("temperature", DataType.double, 0.0),
        ParamSpec("seed", DataType.long, 0),
    ]
    answer_schema = Schema(answers[kind])
    if kind == "generation":
        return ModelSignature(outputs=answer_schema, params=ParamSchema(asked))
    return ModelSignature(outputs=answer_schema)


def says(version: "ModelVersion", record: VersionRecord) -> bool:
    """Whether a version names the release, the run and the logged model that the ledger
    recorded."""
    told = (version.tags.get(RELEASE_TAG), version.run_id or "", model_id_of(version))
    return told == (record.release.release_id, record.run_id, record.model_id)


def model_id_of(version: "ModelVersion") -> str:
    """Returns the logged model that a version's source names, "" where it names something else:
    that is no version of ours."""
    model_id = (version.source or "").rpartition("/")[2]
    return model_id if model_id.startswith("m-") else ""


@contextlib.contextmanager
def _temporary_in(folder: Path) -> Iterator[None]:
    """MLflow copies artifacts through the temporary directory: keep that within the workspace,
    where it is swept."""
    folder.mkdir(parents=True, exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _requirements() -> list[str]:
    return [
        "s3t==" + package_version("s3t"),
        *(f"{name}=={package_version(name).split('+')[0]}" for name in _NEEDED),
    ]
