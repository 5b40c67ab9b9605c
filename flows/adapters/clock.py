"""The clock of this machine."""

import time
from datetime import UTC, datetime

from s3t_core.errors import GuaranteeError

_FIRST_YEAR, _LAST_YEAR = 2025, 2199


class SystemClock:
    """Real time. Fills the port `Clock`."""

    def now(self) -> datetime:
        """Now, UTC. Raises GuaranteeError for a clock that cannot be right: deadlines are counted
        by it."""
        now = datetime.now(UTC)
        if not _FIRST_YEAR <= now.year <= _LAST_YEAR:
            raise GuaranteeError(
                f"expected a clock between {_FIRST_YEAR} and {_LAST_YEAR}, got one that says "
                f"{now.year}; set this machine's clock, then run the command again"
            )
        return now

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
