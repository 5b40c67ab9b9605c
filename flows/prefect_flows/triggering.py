"""A deployment of Prefect's, as a use case asks for it."""

import os
from pathlib import Path

from flows.adapters.locks import is_held
from flows.adapters.prefect_client import begin_run, prefect_client
from flows.settings import is_our_server

FULL_RETRAIN = "full-retrain/full-retrain"
"""What an erase run triggers when the deletion-rate budget is spent."""


class PrefectDeployment:
    """A deployment by name (FLOW/DEPLOYMENT) on the Prefect server of this process."""

    def __init__(self, name: str, serve_lock: Path) -> None:
        """`serve_lock` is held while `s3t serve` runs."""
        self._name, self._serve_lock = name, serve_lock

    def is_carried_out(self) -> bool:
        """Whether somebody carries it out: a Prefect server of the operator's knows it, or `s3t
        serve` runs. The workspace's own server knows it from the last `s3t serve`, which may be
        long gone."""
        from prefect.settings import PREFECT_API_URL

        url = os.environ.get("PREFECT_API_URL") or PREFECT_API_URL.value()
        if not url or (is_our_server(url) and not is_held(self._serve_lock)):
            return False
        with prefect_client() as prefect:
            return prefect.deployment(self._name) is not None

    def begin(self, once: str, parameters: dict[str, object]) -> str:
        """Ask for a run, whose id is returned. The same `once` again is the same run."""
        return begin_run(self._name, once, parameters)

    def has_ended(self, run: str) -> bool:
        """Whether a run is over, whatever came of it, or its server forgot it."""
        with prefect_client() as prefect:
            return prefect.has_ended(run)
