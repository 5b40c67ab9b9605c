"""Load the serving version exactly as anyone else would: through MLflow, by its alias."""

import os
import tempfile
import warnings
from typing import Any

from flows.adapters.local import as_owner_only
from flows.progress import current
from flows.wiring import Workspace
from s3t_core.errors import UsageError


def champion_of(place: Workspace) -> Any:
    """`models:/NAME@champion`, once it is clear that its files, the code that answers among them, are those that the
    ledger recorded. Raises UsageError when nothing serves yet, GuaranteeError for other files.

    From a server MLflow brings the files to a directory that it never removes, stages that a later erasure must destroy
    among them: they come into the workspace instead, and are gone when the model is in memory.
    """
    champion = place.ledger.state().champion
    if champion is None:
        raise UsageError("expected a model version to serve, got none; run `s3t ingest SOURCE` and `s3t train`")
    place.registry.check_files(champion)
    return _loaded(place)


def _loaded(place: Workspace) -> Any:
    with current().spinner("Loading the model"):
        registry = place.registry
        import mlflow
        import transformers
        transformers.utils.logging.disable_progress_bar()
        name = f"models:/{registry.name}@champion"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of type hints in the model's code
            if not place.config.registry.tracking_uri:
                return mlflow.pyfunc.load_model(name)
            loading = place.state_dir / "loading"  # what a killed process left there is swept by the next command
            as_owner_only(loading)
            with tempfile.TemporaryDirectory(dir=loading, prefix=f"{os.getpid()}-") as folder:
                return mlflow.pyfunc.load_model(name, dst_path=folder)
