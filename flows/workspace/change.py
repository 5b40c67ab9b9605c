"""That a process holds the workspace: whoever writes asks for it, so nobody writes without."""

import contextlib
from collections.abc import Iterator

from flows.adapters.lease import Lease
from s3t_core.errors import WorkspaceError


class Change:
    """The hold on a workspace that `access.changing` gives, and takes back when its block ends."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._has_ended = False

    def end(self) -> None:
        """Nothing is written under it any more."""
        self._has_ended = True

    def require(self) -> None:
        """That the block has not ended: before each piece of writing. Raises WorkspaceError."""
        if self._has_ended:
            raise WorkspaceError(
                "expected the workspace to be held while it is changed, got a hold that has ended; "
                "take it again (access.changing)"
            )

    def check(self) -> None:
        """That nobody else took over meanwhile, as the database tells. Raises WorkspaceError,
        LostLease."""
        self.require()
        self._lease.check()


@contextlib.contextmanager
def change_under(lease: Lease) -> Iterator[Change]:
    """The hold that a lease gives, until the block ends, however it does."""
    held = Change(lease)
    try:
        yield held
    finally:
        held.end()
