"""`s3t ingest --check SOURCE...`: the sources, wherever they lie, held against the settings."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from flows.adapters.loading import folder_in_use, place_of_user, sweep_of_user
from flows.adapters.sources.remote import brought, is_remote
from flows.use_cases.checking import Standable, Standing, check
from flows.workspace.parts import HasConfig, HasFolders
from s3t_core.config import Config


class Checked(Standable, HasConfig, HasFolders, Protocol):
    """A workspace whose settings and data a source is held against."""


def check_sources(
    workspace: Checked | None, sources: Sequence[str], append: bool, shrink: bool
) -> dict[str, Any]:
    """What an ingest of these sources would do: by a workspace's settings and data, or by the usual
    settings where there is none. Remote sources are brought to this machine meanwhile. Raises what
    bringing them raises."""
    config = workspace.config if workspace else Config()
    standing = None
    if workspace is not None:
        standing = Standing(workspace, workspace.ledger.state(), append, shrink)
    with (
        _scratch(workspace, sources) as folder,
        brought(sources, folder, config.data.query) as here,
    ):
        return check(config, workspace.keys if workspace else None, here, standing)


@contextmanager
def _scratch(workspace: Checked | None, sources: Sequence[str]) -> Iterator[Path]:
    """Where remote sources are brought to: in a workspace, where the next command removes what a
    killed one left; without one, in a place of this user's, where any next one does."""
    with ExitStack() as made:
        if workspace is not None and any(map(is_remote, sources)):
            scratch = workspace.state_dir / "loading"
            scratch.mkdir(exist_ok=True)
        else:
            sweep_of_user()
            scratch = place_of_user()
        yield made.enter_context(folder_in_use(scratch))
