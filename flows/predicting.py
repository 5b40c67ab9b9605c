"""Load the serving version by MLflow, as anyone else would, but from the very files that were checked."""

import warnings
from typing import Any

from flows.progress import current
from flows.wiring import Workspace
from s3t_core.erasure.state import VersionRecord
from s3t_core.errors import UsageError


def champion_of(place: Workspace) -> Any:
    """`models:/NAME@champion`, once it is clear that its files, the code that answers among them, are those that the
    ledger recorded. Raises UsageError when nothing serves yet, GuaranteeError for other files, and where the registry
    names another version or other files.

    From a server MLflow brings the files to a directory that it never removes, stages that a later erasure must destroy
    among them: they come into the workspace instead, and are gone when the model is in memory.
    """
    champion = place.ledger.state().champion
    if champion is None:
        raise UsageError("expected a model version to serve, got none; run `s3t ingest SOURCE` and `s3t train`")
    return _loaded(place, champion)


def _loaded(place: Workspace, champion: VersionRecord) -> Any:
    with current().spinner("Loading the model"):
        import mlflow
        import transformers
        transformers.utils.logging.disable_progress_bar()
        loading = place.state_dir / "loading"
        with warnings.catch_warnings(), place.registry.checked_files(champion, loading) as folder:
            warnings.simplefilter("ignore")  # of type hints in the model's code
            return mlflow.pyfunc.load_model(str(folder))
