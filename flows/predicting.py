"""Load the serving version exactly as anyone else would: through MLflow, by its alias."""

import warnings
from typing import Any

from flows.progress import current
from flows.wiring import Workspace
from s3t_core.errors import UsageError


def champion_of(place: Workspace) -> Any:
    """`models:/NAME@champion`. Raises UsageError when nothing serves yet."""
    if place.ledger.state().champion is None:
        raise UsageError("expected a model version to serve, got none; run `s3t ingest SOURCE` and `s3t train`")
    with current().spinner("Loading the model"):
        registry = place.registry
        import mlflow
        import transformers
        transformers.utils.logging.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of type hints in the model's code
            return mlflow.pyfunc.load_model(f"models:/{registry.name}@champion")
