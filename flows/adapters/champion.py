"""The model version's code (MLflow models-from-code, no pickle): loads `models:/NAME@champion` and answers.

It fails closed. The version knows its release id from its own files; the registry says by tags which release the
alias serves, and the digest of its release document, which decides labels and bounds. They must agree when the model is
loaded and again whenever the last confirmation is older than the staleness bound, by a clock that runs while the
machine sleeps; when they differ, or the registry cannot be asked, it refuses. Declared offline use ([erasure]
offline_hours) is the one exception: so long after its last confirmation a loaded model goes on without a registry.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel

ALIAS = "champion"


class Champion(PythonModel):  # type: ignore[misc]
    """The ensemble of a release. Input: texts, as a list or a one-column pandas frame."""

    def load_context(self, context: Any) -> None:
        """Build the ensemble from the version's own stage files, each verified by digest."""
        from s3t_core.learning.backbone import find_backbone
        from s3t_core.learning.ensemble import Ensemble
        from s3t_core.learning.release import parse_release_document
        from s3t_core.learning.store import LocalStageStore
        folder = Path(context.artifacts["release"])
        content = (folder / "release.json").read_bytes()
        document = json.loads(content)
        self.document = hashlib.sha256(content).hexdigest()
        self._serving = document["serving"]
        self._confirmed = None
        self._release_id = document["release"]["id"]
        self._confirm()  # before anything in the document is believed
        release, recipe = parse_release_document(document)
        self._ensemble = Ensemble(find_backbone(recipe.model), recipe, release, LocalStageStore(folder).get)

    def predict(self, context: Any, model_input: list[str], params: Any = None):  # type: ignore[no-untyped-def]  # noqa: ARG002
        """A list of {"label": ..., "probabilities": {label: share}}, one per text. Raises StaleModel, NoLiveShard."""
        self._confirm()
        predictions = self._ensemble.predict(_texts(model_input))
        self._confirm()  # a long batch may have outlived the confirmation it began with
        return [{"label": p.label, "probabilities": p.probabilities} for p in predictions]

    def _confirm(self) -> None:
        from s3t_core.errors import StaleModel
        from s3t_core.times import Moment
        asked = Moment.now()
        since = self._confirmed.seconds_until(asked) if self._confirmed else float("inf")
        if since <= self._serving["staleness_seconds"]:
            return
        try:
            client = mlflow.MlflowClient()
            tags = client.get_model_version_by_alias(self._serving["name"], ALIAS).tags
        except Exception as error:
            if since <= self._serving.get("offline_seconds", 0):
                return  # declared, and named in certificates; never without one confirmation
            raise StaleModel(f"expected the registry to confirm this model version, got {type(error).__name__}; "
                             "set the tracking URI to the registry it was loaded from") from None
        if tags.get("s3t.release") != self._release_id:
            raise StaleModel(f"expected this model version to be the one that serves, but the alias {ALIAS!r} has "
                             f"moved on; load models:/{self._serving['name']}@{ALIAS} again")
        if tags.get("s3t.document") != self.document:
            raise StaleModel("expected the release document that the registry vouches for beside this model, got "
                             "another: somebody changed it, and it decides what is answered; run `s3t erase`, which "
                             "puts it right")
        self._confirmed = asked


def _texts(model_input: Any) -> list[str]:
    if hasattr(model_input, "columns"):
        column = "text" if "text" in model_input.columns else model_input.columns[0]
        model_input = model_input[column]
    return [str(text) for text in model_input]


mlflow.models.set_model(Champion())
