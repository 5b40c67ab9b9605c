"""What an ingest that Prefect begins may be told: Prefect keeps the parameters of a run, and the
name of a file may be a person's."""

from pathlib import Path

from prefect.context import FlowRunContext

from flows.adapters.sources import named
from flows.prefect_flows.quiet import KEPT
from s3t_core.errors import UsageError


def listed(root: Path, source: str | list[str]) -> list[str]:
    """The sources, with those that stand in a file instead of its name. Raises UsageError."""
    run, given = FlowRunContext.get(), named(source)
    given_as = (
        run.flow_run.parameters.get("source")
        if run is not None and run.flow_run is not None
        else KEPT
    )
    if given_as != KEPT and not all(s.startswith(("@", "example:")) for s in given):
        raise UsageError(
            "expected the source of a run that Prefect begins as @FILE, a file in the workspace "
            "directory with a source a line, got a source itself: Prefect keeps parameters, and "
            "the name of a file may be a person's. Nothing was changed: delete that run in "
            "Prefect, and begin it with source=@FILE"
        )
    found: list[str] = []
    for text in given:
        path = root / text.removeprefix("@")
        if not text.startswith("@"):
            found.append(text)
        elif not path.resolve().is_relative_to(root.resolve()) or not path.is_file():
            raise UsageError(
                "expected @FILE to name a file in the workspace directory, got none there; nothing "
                "was changed"
            )
        else:
            found += [
                line.strip()
                for line in path.read_text(errors="replace").splitlines()
                if line.strip()
            ]
    return found
