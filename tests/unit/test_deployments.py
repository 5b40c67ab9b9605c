"""infra/prefect.yaml names flows that exist, with parameters they take."""

import importlib
import inspect
from pathlib import Path

import yaml

from flows.retrain import DEPLOYMENT


def test_every_deployment_names_a_flow_and_its_parameters() -> None:
    document = yaml.safe_load((Path(__file__).parents[2] / "infra" / "prefect.yaml").read_text())
    names = set()
    for deployment in document["deployments"]:
        module, function = deployment["entrypoint"].rsplit(".", 1)
        flow = getattr(importlib.import_module(module), function)
        names.add(f"{flow.name}/{deployment['name']}")
        taken = inspect.signature(flow.fn).parameters
        assert set(deployment["parameters"]) <= set(taken)
        assert deployment["concurrency_limit"]["limit"] == 1
    assert DEPLOYMENT in names  # what the erase flow triggers
    repair = next(d for d in document["deployments"] if d["name"] == "repair")
    assert [s["active"] for s in repair["schedules"]] == [False]
