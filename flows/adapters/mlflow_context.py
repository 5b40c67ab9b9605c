"""What MLflow notes of whoever makes a run or a model: by itself it writes down the login, the path
of the program, which may have the login in it, and from where the repository came that the program
lies in, which may have a password in it. A login may be a person's id, and a person with rows here:
nobody could be erased who runs the eraser. Ours are made by "s3t"."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from mlflow.tracking.context import registry
from mlflow.tracking.context.abstract_context import RunContextProvider
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_BRANCH,
    MLFLOW_GIT_COMMIT,
    MLFLOW_GIT_REPO_URL,
    MLFLOW_SOURCE_NAME,
    MLFLOW_USER,
)

_REPOSITORY = (MLFLOW_GIT_REPO_URL, MLFLOW_GIT_BRANCH, MLFLOW_GIT_COMMIT)
_OURS: ContextVar[bool] = ContextVar("ours", default=False)


class _Nobody(RunContextProvider):
    """Comes after MLflow's own providers, so its tags stand."""

    def in_context(self) -> bool:
        return _OURS.get()

    def tags(self) -> dict[str, str]:
        return {MLFLOW_USER: "s3t", MLFLOW_SOURCE_NAME: "s3t"} | dict.fromkeys(_REPOSITORY, "")


@contextlib.contextmanager
def made_by_nobody() -> Iterator[None]:
    """Runs and models that are made within name nobody."""
    providers = registry._run_context_provider_registry
    if not any(isinstance(each, _Nobody) for each in providers):
        providers.register(_Nobody)  # type: ignore[no-untyped-call]
    before = _OURS.set(True)
    try:
        yield
    finally:
        _OURS.reset(before)
