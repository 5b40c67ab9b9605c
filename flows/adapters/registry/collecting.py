"""`mlflow gc`: rows and files of what is deleted, which MLflow keeps until then."""

from s3t_core.errors import StorageError


def collect_deleted(
    backend: str,
    tracking_uri: str,
    *only: str,
) -> None:
    """Remove what is deleted in the database `backend`, and its files through the server at
    `tracking_uri`. `only`: options of `mlflow gc` that name what to take. Raises StorageError."""
    from click.testing import CliRunner
    from mlflow.cli import gc

    told = [
        "--backend-store-uri",
        backend,
        "--tracking-uri",
        tracking_uri,
        *only,
    ]
    result = CliRunner().invoke(gc, told)
    if result.exit_code != 0:
        raise StorageError(
            f"mlflow gc failed ({type(result.exception).__name__}); run `s3t erase` again"
        )
