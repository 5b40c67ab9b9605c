"""A Prefect server as a child of `s3t serve`: python -m flows.adapters.prefect_server HOST PORT."""

import sys

from flows.adapters.child import die_with_parent


def main() -> None:
    """Serve until the parent is gone."""
    die_with_parent()
    import uvicorn
    uvicorn.run("prefect.server.api.server:create_app", factory=True, host=sys.argv[1], port=int(sys.argv[2]),
                log_level="warning", timeout_graceful_shutdown=5)


if __name__ == "__main__":
    main()
