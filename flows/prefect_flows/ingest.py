"""Ingest as a Prefect flow (flows/use_cases/ingesting.py)."""

from pathlib import Path
from typing import Any

from flows.prefect_flows.quiet import flow
from flows.prefect_flows.sources import listed
from flows.prefect_flows.steps import PrefectSteps
from flows.use_cases.ingesting import run_ingest
from flows.workspace.workspace import enter


@flow(name="ingest")
def ingest(
    workspace: str,
    source: str | list[str],
    append: bool = False,
    shrink: bool = False,
    chunk_rows: int = 50_000,
) -> dict[str, Any]:
    """Ingest `source` (a path, a folder, a pattern, several of them, or example:NAME) into the
    workspace directory. `append`: unite with what is there. `shrink`: also where much of what is
    there would be gone ([data] max_shrink). @FILE is a file of the workspace directory with a
    source a line: the parameters of a run that Prefect begins stay in its database, so there it
    must be that, or an example."""
    opened = enter(Path(workspace))
    sources = listed(opened.root, source)
    return run_ingest(opened, sources, append, chunk_rows, shrink, PrefectSteps()).__dict__
