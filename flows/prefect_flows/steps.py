"""The steps of a use case as tasks of the Prefect flow that runs now, whose page shows them."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from flows.prefect_flows.quiet import outcome_of, task
from flows.use_cases.steps import Step

T = TypeVar("T")
_log = logging.getLogger("prefect.s3t")


class PrefectSteps:
    """A task per step."""

    def run(self, kind: str, work: Callable[[], T]) -> T:
        """Do one, and return what it returned. Raises what it raised."""
        done: T = _work.with_options(name=kind)(work)
        return done

    def run_all(self, steps: Sequence[Step]) -> int:
        """Do several, as the flow's task runner does. Returns how many were not done although none
        failed. Raises what the first that failed raised."""
        begun: dict[str, Any] = {}
        for step in steps:
            named = _work.with_options(name=step.kind, task_run_name=step.title)
            before = [begun[key] for key in step.after if key in begun]
            begun[step.key] = named.submit(step.work, wait_for=before)
        for future in begun.values():
            future.wait()
        left = [future for future in begun.values() if not future.state.is_completed()]
        for future in left:
            outcome_of(future)
        return len(left)

    def show(self, key: str, table: list[dict[str, object]], description: str) -> None:
        """As an artifact of the run. All is done by then: a page that Prefect does not take is no
        reason to fail, and says so in its log, without what it was to show."""
        from prefect.artifacts import create_table_artifact

        try:
            create_table_artifact(key=key, table=table, description=description)
        except Exception as error:  # whatever its client, or its server, raises
            _log.warning("The page of this run could not be shown (%s).", type(error).__name__)


@task(name="step")
def _work(work: Callable[[], T]) -> T:
    return work()
