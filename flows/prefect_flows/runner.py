"""Prefect's runner as a child of `s3t serve`, which starts a process per flow run: python -m
flows.prefect_flows.runner WORKSPACE."""

import sys
from pathlib import Path

from flows.adapters.child import die_with_parent
from flows.prefect_flows.deployments import deployments, to_prefect
from flows.workspace.workspace import enter


def main() -> None:
    """Register the deployments and run what is scheduled, until the parent is gone."""
    die_with_parent()
    workspace = enter(Path(sys.argv[1]))
    from prefect import serve

    serve(
        *(to_prefect(d) for d in deployments(workspace.config, workspace.root)),
        pause_on_shutdown=False,
        print_starting_message=False,
    )


if __name__ == "__main__":
    main()
