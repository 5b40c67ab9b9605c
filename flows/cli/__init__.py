"""The command line: `s3t` and what its commands print. Each module holds the commands of one
subject; what they do stands in use cases and flows."""


def main() -> None:
    """Run `s3t`. Exits with its exit code."""
    from flows.cli.ending import Ending

    with Ending():
        from flows.cli.app import main as run

        run()
