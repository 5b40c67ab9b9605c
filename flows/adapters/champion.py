"""The code that lies in every registered version (MLflow models-from-code, no pickle).

Versions outlive releases of this package: MLflow runs this file, as it was when the version was
registered, beside whatever release is installed where the version is loaded. So it takes one name
of ours, which stays for good (flows.champion), and nothing else. What it answers, and when it
refuses, stands in flows.adapters.served_model.
"""

import mlflow

from flows.champion import Champion

mlflow.models.set_model(Champion())
