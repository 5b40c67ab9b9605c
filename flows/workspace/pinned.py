"""The settings that must stay from the first data on, because versions and files stand under
them."""

from collections.abc import Callable, Mapping

from s3t_core.config import Config
from s3t_core.errors import WorkspaceError


class Pinned:
    """Those settings as s3t.toml has them, held against what the ledger says of them."""

    def __init__(self, config: Config, refuse_migration: Callable[[], None]) -> None:
        """`refuse_migration` raises where they differ because a move is unfinished."""
        self._config, self._refuse_migration = config, refuse_migration
        self.is_settled = False
        """Whether the ledger names them: data came."""

    def wanted(self) -> dict[str, str]:
        """By their names, as s3t.toml has them."""
        return {
            "[system] name": self._config.system.name,
            "[store] url": self._config.store.url,
            "[dvc] remote": self._config.dvc.remote,
            "[registry] tracking_uri": self._config.registry.tracking_uri,
        }

    def follow(self, settled: Mapping[str, str] | None) -> None:
        """Hold them against those that the ledger tells of, None before the first data. Raises
        WorkspaceError for one that is another."""
        self.is_settled = settled is not None
        for what, value in self.wanted().items():
            pinned = value if settled is None else settled.get(what, "")
            if pinned != value:
                self._refuse_migration()
                raise WorkspaceError(
                    f"expected {what} = {pinned!r} in s3t.toml, as when the first data came, "
                    f"got {value!r}; versions and files stand under it: change it back, then `s3t "
                    "migrate --settings FILE` moves them"
                )
