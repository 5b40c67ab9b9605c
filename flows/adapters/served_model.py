"""The model that whoever loads `models:/NAME@champion` gets: it loads its release, and answers.

It fails closed:

1. The version knows its release from its own files; the registry says by tags which release the
   alias serves, and the digest of its release document, which decides labels and bounds. They must
   agree when the model is loaded, and again whenever the last confirmation is older than the
   staleness bound, by a clock that runs while the machine sleeps. When they differ, or the registry
   cannot be asked, it refuses. Declared offline use ([erasure] offline_hours) is the one exception:
   so long after its last confirmation a loaded model goes on without a registry.
2. Where the alias has moved on, the old release answers nothing any more. A model that was asked
   for by the alias fetches what the alias names now: the release document, believed only when the
   registry vouches for its digest, and the stages that it names, each verified by its digest. No
   code is fetched: this code goes on. What was brought to a directory is removed when it is in
   memory, and so are the old stages where MLflow brought them from a server.
3. A model that was asked for by a number, a run or an id, or is pinned (`model_config={"pinned":
   True}`), refuses for good instead. MLflow does not tell a model what it was asked for:
   `asked_for` finds it out. Where nobody can say, the model was the alias's own when it was loaded,
   and follows it.
4. In MLflow's scoring server, a refusal is a 503, and /ping and /health ask the model: they answer
   503 as long as it would refuse.
"""

import gc
import hashlib
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, TEMPORARILY_UNAVAILABLE
from mlflow.pyfunc.model import PythonModel

from flows.adapters.mlflow_file import open_anew
from s3t_core.conversations import Conversation
from s3t_core.domain import Combine
from s3t_core.errors import DataError, NoLiveShard, S3TError, StaleModel
from s3t_core.learning.payload import pairs_of, questions_of, texts_of
from s3t_core.learning.pins import wait_without_spinning
from s3t_core.learning.release import kind_of
from s3t_core.times import Moment

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from s3t_core.learning.writing import Writing

ALIAS = "champion"
DOCUMENT = "release.json"
_UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What a registry answers that has no such alias, or no such model."""
_SERVER = "mlflow.pyfunc.scoring_server.app"
_TRIES = 3
_PATIENCE = 1.0
"""Seconds that a question about health waits for a model that is at the registry or loading."""
_FORGOTTEN = 3600.0
"""A directory of ours this old, in seconds, is what a killed process left."""
_OURS = "s3t-champion-"


class _PlainError(MlflowException):
    """An error whose sentence MLflow's server passes on as it is: it would put what was asked
    before it, texts too."""

    code = TEMPORARILY_UNAVAILABLE

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence
        super().__init__(sentence, error_code=self.code)

    @property
    def message(self) -> str:
        return self._sentence

    @message.setter
    def message(self, _: str) -> None:
        pass


class _Stale(_PlainError, StaleModel):
    """HTTP status 503."""


class _Gone(_Stale):
    """The registry answers, and knows no such alias or model: no offline use covers that."""


class _NothingLives(_PlainError, NoLiveShard):
    """HTTP status 503."""


class _Misread(_PlainError, DataError):
    """HTTP status 400."""

    code = BAD_REQUEST


_COMBINE: dict[str, Combine] = {"votes": "votes", "merged": "merged"}


@dataclass(frozen=True)
class _Document:
    """A release document as it was read: not believed before the registry vouches for its
    digest."""

    digest: str
    value: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "_Document":
        content = (folder / DOCUMENT).read_bytes()
        return cls(hashlib.sha256(content).hexdigest(), json.loads(content))

    @property
    def release_id(self) -> str:
        return str(self.value["release"]["id"])

    @property
    def combine(self) -> Combine:
        """How the shards answer; versions that say nothing of it are asked for votes. Raises
        StaleModel for a way that this release of the software does not know."""
        way: Combine | None = _COMBINE.get(str(self.serving.get("combine", "votes")))
        if way is None:
            raise _Stale(
                "expected a version whose shards answer in a way that this release of the software "
                "knows, got another; load it with the release that registered it"
            )
        return way

    @property
    def serving(self) -> dict[str, Any]:
        return dict(self.value["serving"])

    @property
    def writes(self) -> bool:
        """Whether it is of a language model."""
        return kind_of(self.value["recipe"]) == "generation"


@dataclass(frozen=True)
class _Loaded:
    """A release in memory, as the registry vouched for it under the version `number`."""

    document: _Document
    ensemble: Any
    number: str

    def answers(self, asked: object, params: Mapping[str, object]) -> list[dict[str, object]]:
        """What is answered to a payload. Raises NoLiveShard, DataError."""
        if not self.document.writes:
            text, pair = (self.document.serving.get(n, "") for n in ("text", "text_pair"))
            texts = pairs_of(asked, text, pair) if pair else texts_of(asked, text)
            return [p.document() for p in self.ensemble.predict(texts)]
        written = self.ensemble.write(self._questions(asked), self._how(params))
        return [p.document() for p in written]

    def pieces(self, asked: object, params: Mapping[str, object]) -> Iterator[dict[str, object]]:
        """The same of a language model to one question, piece by piece: each as {"text": ...}, the
        last one with no text and with the other members of an answer."""
        if not self.document.writes:
            raise DataError("expected a model that writes texts, got one that labels them")
        questions = self._questions(asked)
        if len(questions) != 1:
            raise DataError(f"expected one question at a time, got {len(questions)}")
        for piece in self.ensemble.stream(questions[0], self._how(params)):
            yield {"text": piece} if isinstance(piece, str) else {**piece.document(), "text": ""}

    def _how(self, params: Mapping[str, object]) -> "Writing":
        from s3t_core.learning.writing import writing_of

        return writing_of(params, self.document.serving["max_new_tokens"])

    def _questions(self, asked: object) -> list[Conversation]:
        serving = self.document.serving
        return questions_of(asked, serving.get("text", ""), serving["asks"])


class Context(Protocol):
    """What MLflow hands over with a model: `artifacts` by name, and `model_config`."""

    @property
    def artifacts(self) -> Mapping[str, str]:
        """Where each lies."""

    @property
    def model_config(self) -> Mapping[str, object] | None:
        """As it was logged, or given to whoever loads it."""


class Serving:
    """The release that serves, and the way to the next one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None
        self._confirmed: Moment | None = None
        self._failed: _Stale | None = None
        self._failures = 0
        """How often it failed. No clock says who came before: one may be set meanwhile."""
        self._over: _Stale | None = None
        self._brought: Path | None = None
        self._registry = ("", "")

    def load_context(self, context: Context) -> None:
        """Build the ensemble from the version's own stage files, each verified by digest. Raises
        StaleModel."""
        wait_without_spinning(os.environ)
        folder = Path(context.artifacts["release"])
        own, asked = _Document.read(folder), asked_for()
        self._registry = _registry()
        self._name = str(own.serving["name"])
        self._pinned = bool((context.model_config or {}).get("pinned")) or _is_one_version(asked)
        if _name_in(asked) not in ("", self._name):
            raise _Stale(
                "expected the files of the model that was asked for, got those of another; "
                "somebody changed them: run `s3t erase`, which puts it right"
            )
        version = self._named()
        if own.release_id == version.tags.get("s3t.release"):
            self._check(own, version)  # before anything in the document is believed
            self._loaded = _built(own, folder, version)
        elif self._pinned or not asked:
            raise self._moved_on()
        else:  # it moved while MLflow brought the files
            self._loaded = self._fetched(version)
        self._confirmed = Moment.now() if self._loaded.document is not own else self._asked
        self._brought = _brought(folder, self._place_of(version))
        if self._loaded.document is not own:
            self._remove_brought()
        _answer_pings(self)

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
        """A list of answers, one per text: {"label": ..., "probabilities": {label: share}}, or what
        else the task answers (learning.tasks). `params`, of a language model: `max_new_tokens`,
        `temperature` and `seed`. Raises StaleModel, NoLiveShard, and DataError for what is no
        text."""
        loaded = self._current()
        try:
            for _ in range(_TRIES):
                answers = loaded.answers(model_input, params or {})
                still = (
                    self._current()
                )  # a long batch may have outlived the confirmation it began with
                if still is loaded:
                    return answers
                loaded = still
        except DataError as error:
            raise _Misread(str(error)) from None
        except NoLiveShard as error:
            raise _NothingLives(str(error)) from None
        raise _Stale(
            f"expected a release that serves as long as it takes to answer, got {_TRIES} in a row "
            "that were replaced meanwhile; ask again, with fewer texts at a time"
        )

    def predict_stream(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
        """The text that a language model writes behind one question, piece by piece: each as
        {"text": ...}, the last one with no text, and with `finish`, `tokens` and `prompt_tokens`.
        It ends where another release serves from then on. Raises as `predict` does."""
        loaded = self._current()
        try:
            for piece in loaded.pieces(model_input, params or {}):
                if self._current() is not loaded:
                    raise _Stale(
                        "expected a release that serves until all was written, got another "
                        "meanwhile; ask again"
                    )
                yield piece
        except DataError as error:
            raise _Misread(str(error)) from None
        except NoLiveShard as error:
            raise _NothingLives(str(error)) from None

    def confirm(self) -> None:
        """That what was loaded may answer now. Raises as `predict` does."""
        self._current()

    def refusal(self) -> str:
        """Why it would not answer now, "" where it would. Fetches what the alias names where it
        moved on; does not wait for another thread that is at it."""
        if not self._lock.acquire(timeout=_PATIENCE):
            return "it is being loaded, or the registry has not answered yet"
        try:
            return (
                "" if self._settled().ensemble.lives else "every shard is dead; run `s3t retrain`"
            )
        except S3TError as error:
            return str(error)
        finally:
            self._lock.release()

    def _current(self) -> _Loaded:
        """What may answer now. Threads ask one at a time; who waited for a failure takes it as the
        answer."""
        came = self._failures
        with self._lock:
            if self._failed and came < self._failures:
                raise self._failed
            try:
                loaded = self._settled()
            except _Stale as error:
                self._failed, self._failures = error, self._failures + 1
                raise
            self._failed = None
            return loaded

    def _settled(self) -> _Loaded:
        """What may answer now, for whoever holds the lock."""
        if self._over:
            raise self._over
        serving = self._loaded.document.serving if self._loaded else {}
        since = (
            self._confirmed.seconds_until(Moment.now())
            if self._confirmed and self._loaded
            else float("inf")
        )
        if self._loaded and since <= serving["staleness_seconds"]:
            return self._loaded
        try:
            version = self._named()
        except _Gone:
            raise
        except _Stale:
            if self._loaded and since <= serving.get("offline_seconds", 0):
                return (
                    self._loaded
                )  # declared, and named in certificates; never without one confirmation
            raise
        asked = self._asked
        self._loaded = self._agreed(version)
        self._confirmed = asked
        return self._loaded

    def _agreed(self, version: "ModelVersion") -> _Loaded:
        """What is loaded where it is what the alias names; else that, loaded."""
        held = self._loaded
        if held is not None and held.document.release_id == version.tags.get("s3t.release"):
            if (
                self._pinned
                or version.version == held.number
                or held.document.digest == _vouched(version)
            ):
                self._check(held.document, version)
                return held
        elif self._pinned:
            self._over = self._moved_on()
            self._loaded = None
            self._remove_brought()
            raise self._over
        del held
        self._remove_brought()
        self._loaded = None  # it answers nothing any more, and two releases need the memory of two
        gc.collect()
        return self._fetched(version)

    def _named(self) -> "ModelVersion":
        """The version that the alias names, as the registry says now."""
        self._asked = Moment.now()
        if self._registry != _registry():
            raise _Stale(
                "expected MLflow's tracking and registry URI to be those that this model was "
                "loaded from, got others, where a model of the same name may be another's; set "
                "them again, or load the model anew"
            )
        try:
            open_anew(self._registry[1])
            return mlflow.MlflowClient().get_model_version_by_alias(self._name, ALIAS)
        except Exception as error:
            is_gone = isinstance(error, MlflowException) and error.error_code in _UNKNOWN
            raise (_Gone if is_gone else _Stale)(
                f"expected the registry to confirm this model version, got {type(error).__name__}; "
                "set the tracking URI to the registry it was loaded from"
            ) from None

    def _place_of(self, version: "ModelVersion") -> str:
        """Where the registry keeps a version's files, "" where it does not say."""
        try:
            return str(
                mlflow.MlflowClient().get_model_version_download_uri(self._name, version.version)
            )
        except Exception:
            return ""

    def _remove_brought(self) -> None:
        """The stages of a release that serves no longer, where MLflow brought them for this model:
        it never removes them, and an erasure may have destroyed them everywhere else."""
        for path in self._brought.glob("*.safetensors") if self._brought else ():
            path.unlink(missing_ok=True)
        self._brought = None

    def _check(self, document: _Document, version: "ModelVersion") -> None:
        if document.digest != _vouched(version):
            raise _Stale(
                "expected the release document that the registry vouches for beside this model, "
                "got another: somebody changed it, and it decides what is answered; run `s3t "
                "erase`, which puts it right"
            )

    def _fetched(self, version: "ModelVersion") -> _Loaded:
        """What a version of the alias holds, in memory, checked as when a model is first loaded."""
        _remove_forgotten()
        try:
            with tempfile.TemporaryDirectory(prefix=_OURS) as folder:
                place = Path(
                    mlflow.artifacts.download_artifacts(
                        f"models:/{self._name}/{version.version}/artifacts/release", dst_path=folder
                    )
                )
                document = _Document.read(place)
                self._check(document, version)  # before anything in it is believed
                if (document.release_id, document.serving["name"]) != (
                    version.tags.get("s3t.release"),
                    self._name,
                ):
                    raise _Stale(
                        "expected the release that the registry names, got another; run `s3t "
                        "erase`, which puts it right"
                    )
                return _built(document, place, version)
        except _Stale:
            raise
        except S3TError as error:
            raise _Stale(
                f"the version that the alias {ALIAS!r} names now cannot be loaded: {error}"
            ) from None
        except Exception as error:
            raise _Stale(
                f"expected the version that the alias {ALIAS!r} names now to be loaded, got "
                f"{type(error).__name__}; see that the registry and its files can be reached, and "
                "that the temporary directory has room: the next question tries again"
            ) from None

    def _moved_on(self) -> _Stale:
        return _Stale(
            f"expected this model version to be the one that serves, but the alias {ALIAS!r} has "
            f"moved on; load models:/{self._name}@{ALIAS} again. Where that says the same, "
            "somebody changed the registry: run `s3t erase`, which puts it right"
        )


class Champion(Serving, PythonModel):
    """The ensemble of the release that serves. Input: what s3t_core.learning.payload takes. MLflow
    reads the type hints of a `predict` that stands here, and would refuse all but lists by them."""


def _registry() -> tuple[str, str]:
    """Where this process's MLflow asks."""
    return str(mlflow.get_tracking_uri()), str(mlflow.get_registry_uri())


def _vouched(version: "ModelVersion") -> str:
    return str(version.tags.get("s3t.document", ""))


def _built(document: _Document, folder: Path, version: "ModelVersion") -> _Loaded:
    from s3t_core.learning.backbone import find_backbone
    from s3t_core.learning.ensemble import Ensemble
    from s3t_core.learning.release import parse_release_document
    from s3t_core.learning.store import LocalStageStore

    release, recipe = parse_release_document(document.value)
    ensemble = Ensemble(
        find_backbone(recipe.model),
        recipe,
        release,
        LocalStageStore(folder).get,
        combine=document.combine,
    )
    return _Loaded(document, ensemble, str(version.version))


def _brought(folder: Path, place: str) -> Path | None:
    """The files that a model is loaded from, where they are a copy that MLflow brought from the
    registry's `place`, on another machine or in a bucket, to a temporary directory of its own; None
    where they are anybody else's."""
    temporary, found = Path(tempfile.gettempdir()).resolve(), folder.resolve()
    is_elsewhere = re.match(r"[a-z][a-z0-9+.-]*:", place) is not None and not place.startswith(
        "file:"
    )
    if not is_elsewhere or not found.is_relative_to(temporary) or found == temporary:
        return None
    return folder if found.relative_to(temporary).parts[0].startswith("tmp") else None


def _remove_forgotten() -> None:
    """What killed processes of this user left where models are brought to: stages, which an erasure
    may have destroyed everywhere else."""
    import shutil

    for path in Path(tempfile.gettempdir()).glob(f"{_OURS}*"):
        try:
            known = path.lstat()
            if (
                known.st_uid == os.getuid()
                and known.st_mtime < time.time() - _FORGOTTEN
                and not path.is_symlink()
            ):
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue


def asked_for() -> str:
    """The URI that MLflow was asked for, "" where nobody can say.

    `mlflow.pyfunc.load_model` holds it while it loads. `mlflow models serve` downloads first and
    starts a server with a path: there the command that began it tells.
    """
    held = _held_by_load_model()
    is_a_path = held.startswith("file:") or not re.match(r"[a-z][a-z0-9+.-]*:", held)
    return _given_to_a_server() if is_a_path else held


def _held_by_load_model() -> str:
    frame: Any = sys._getframe()
    while frame is not None:
        if (
            frame.f_code.co_name == "load_model"
            and frame.f_globals.get("__name__") == "mlflow.pyfunc"
        ):
            return str(frame.f_locals.get("model_uri", ""))
        frame = frame.f_back
    return ""


def _given_to_a_server() -> str:
    """What `mlflow models serve`, an ancestor of this process, was given as -m or --model-uri."""
    process = os.getppid() if _SERVER in sys.modules else 0
    while process > 1:
        try:
            words = (
                Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
            )
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return ""
        if "models" in words and "serve" in words:
            return _option(words[words.index("serve") :])
    return ""


def _option(words: list[str]) -> str:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("-m", "--model-uri"):
            return following
        for begin in ("--model-uri=", "-m"):
            if word.startswith(begin):
                return word.removeprefix(begin)
    return ""


def _is_one_version(uri: str) -> bool:
    """Whether it names a version for good: by its number, its run, its id or its place. Another
    alias is one that somebody else moves: nor is that followed."""
    return bool(uri) and not (uri.startswith("models:/") and uri.endswith(f"@{ALIAS}"))


def _name_in(uri: str) -> str:
    """The registered model that a URI names, "" where it names none."""
    found = re.fullmatch(r"models:/+([^@]+)(?:@[^/]+|/[^/]+)/?", uri)
    return found[1] if found else ""


def _answer_pings(model: Serving) -> None:
    """MLflow's scoring server says that all is well as long as its process runs: let it ask the
    model. Its app is made when the model is loaded, so a thread waits for it."""
    module = sys.modules.get(_SERVER)
    if module is not None:
        threading.Thread(target=_put_health, args=(model, module), daemon=True).start()


def _put_health(model: Serving, module: ModuleType) -> None:
    from fastapi import Request, Response
    from starlette.routing import Route

    def health(_: Request) -> Response:
        refusal = model.refusal()
        return Response(f"{refusal}\n", 503 if refusal else 200, media_type="text/plain")

    for _ in range(600):
        app = getattr(module, "app", None)
        if app is not None:
            app.router.routes[:0] = [Route(path, health) for path in ("/ping", "/health")]
            return
        time.sleep(0.1)
