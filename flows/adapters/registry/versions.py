"""The versions of a registered model as MLflow has them, hidden ones too, and the alias of the one
that serves."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from flows.adapters.registry.connection import GONE, Connection, pages, where_there

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models.model import ModelInfo
    from mlflow.store.entities import PagedList

ALIAS = "champion"
_PROMPT = "mlflow.prompt.is_prompt"
"""A tag that anybody sets: MLflow answers then as if the model or version were not there."""
_AT_ONCE = 100
"""So many runs a search asks for."""


class Versions:
    """The versions under one registered model's name. Its methods raise MlflowException."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._name = connection, connection.name
        self._client = connection.client

    def all(self) -> "list[ModelVersion]":
        """Every one, also what somebody made a prompt of."""
        return self._search(f"name = '{self._name}'")

    def numbered(self, number: str) -> "ModelVersion | None":
        """As MLflow tells whoever asks, None where it tells of none."""
        with where_there():
            return self._client.get_model_version(self._name, number)
        return None

    def serving(self) -> str:
        """The version that the alias names, "" for none."""
        if self.all():
            with where_there():
                return str(self._client.get_model_version_by_alias(self._name, ALIAS).version)
        return ""

    def serve(self, version: str) -> None:
        """Move the alias."""
        self._client.set_registered_model_alias(
            self._name,
            ALIAS,
            version,
        )

    def begin(self) -> None:
        """Make the registered model where there is none, and MLflow answer for it."""
        from mlflow.exceptions import MlflowException

        self.unhide()
        try:
            self._client.get_registered_model(self._name)
        except MlflowException:
            self._client.create_registered_model(self._name)

    def add(
        self,
        logged: "ModelInfo",
        run_id: str,
        tags: Mapping[str, str],
    ) -> str:
        """Register a logged model; returns the version's number."""
        made = self._client.create_model_version(
            name=self._name,
            source=logged.model_uri,
            run_id=run_id,
            tags=dict(tags),
            model_id=str(logged.model_id),
        )
        return str(made.version)

    def delete(self, number: str) -> None:
        """Delete one."""
        self._client.delete_model_version(self._name, number)

    def delete_but(self, keep: set[str]) -> None:
        """Delete every one but those of the numbers `keep`."""
        for version in self.all():
            if str(version.version) not in keep:
                self.delete(version.version)

    def delete_of_runs(self, runs: list[str]) -> None:
        """Delete the versions of these runs, under whatever name somebody gave them."""
        for first in range(0, len(runs), _AT_ONCE):
            ids = ", ".join(f"'{run}'" for run in runs[first : first + _AT_ONCE])
            for version in self._search(f"run_id IN ({ids})"):
                self._hidden().delete_model_version(version.name, version.version)

    def delete_name(self) -> None:
        """Delete the registered model. Idempotent."""
        with where_there():
            self._client.delete_registered_model(self._name)

    def prompts(self) -> tuple[bool, list[str]]:
        """Whether somebody made a prompt of the registered model, and of which of its versions:
        MLflow answers then as if they were not there."""
        from mlflow.exceptions import MlflowException

        try:  # MlflowClient itself refuses whatever is a prompt
            model = self._hidden().get_registered_model(self._name)
        except MlflowException as error:
            if error.error_code in GONE:
                return False, []
            raise
        return _PROMPT in model._tags, [str(v.version) for v in self.all() if _PROMPT in v.tags]

    def unhide(self) -> bool:
        """Make MLflow answer for registered model and versions again; whether it did not."""
        registry = self._hidden()
        model, versions = self.prompts()
        if model:
            registry.delete_registered_model_tag(self._name, _PROMPT)
        for version in versions:
            registry.delete_model_version_tag(
                self._name,
                version,
                _PROMPT,
            )
        return model or bool(versions)

    def _hidden(self) -> Any:
        """What answers for prompts too."""
        return self._client._get_registry_client()  # type: ignore[no-untyped-call]

    def _search(self, wanted: str) -> "list[ModelVersion]":
        """Those that somebody made prompts of too. MLflow hides every version of a name that has
        one."""
        found: dict[tuple[str, str], ModelVersion] = {}
        for asked in (
            wanted,
            f"{wanted} and tag.`{_PROMPT}` = 'true'",
            f"{wanted} and tag.`{_PROMPT}` != 'true'",
        ):
            found |= {(v.name, v.version): v for v in pages(partial(self._page, asked))}
        return list(found.values())

    def _page(self, wanted: str, token: str | None) -> "PagedList[ModelVersion]":
        return self._client.search_model_versions(wanted, page_token=token)
