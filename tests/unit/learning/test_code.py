"""Whoever trains a stage runs the code of whoever ordered it: a worker of another release refuses,
however equal its libraries are."""

import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from s3t_core.errors import GuaranteeError, UsageError
from s3t_core.keys import WorkspaceKeys
from s3t_core.learning.jobs import FileRef, StageJob, train
from s3t_core.learning.recipe import NumericProfile, Recipe, StageSpec
from s3t_core.learning.store import LocalStageStore

ROOT = Path(__file__).resolve().parents[3]
RECIPE = Recipe(
    "./no-such-backbone",
    "0" * 64,
    "0" * 64,
    ("a", "b"),
    8,
    ((0,),),
    {},
    {"device": "cpu"},
    NumericProfile("2", "5", "0", "AVX2", 1),
)
TRAIN = """
import pickle, sys
from s3t_core.learning.jobs import train
try:
    train(pickle.loads(sys.stdin.buffer.read()))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def job(tmp_path: Path) -> StageJob:
    """A stage of a backbone that is nowhere: who looks for that has nothing against the code."""
    return StageJob(
        RECIPE,
        StageSpec("0" * 64, 0, (0,), (), ()),
        (),
        (),
        FileRef(tmp_path / "rows.parquet", "0" * 64),
        LocalStageStore(tmp_path / "stages"),
        WorkspaceKeys.derive(bytes(32)),
    )


def test_who_ordered_it_trains_it(job: StageJob) -> None:
    with pytest.raises(UsageError, match="backbone"):
        train(job)


@pytest.mark.parametrize("how", ["other code", "another method", "an earlier method"])
def test_another_release_does_not_train_it(job: StageJob, how: str) -> None:
    method = {"another method": "s3t/2", "an earlier method": ""}.get(how, RECIPE.method)
    others = replace(
        job,
        code="0" * 64 if how == "other code" else job.code,
        recipe=replace(RECIPE, method=method),
    )
    with pytest.raises(GuaranteeError, match="another release"):
        train(others)


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("learning/stage.py", "_WEIGHT_DECAY = 0.01", "_WEIGHT_DECAY = 0.2"),
        ("__init__.py", 'METHOD_VERSION = "s3t', 'METHOD_VERSION = "s4t'),
        ("records.py", '"""', '"""Otherwise. '),
        ("", "", ""),
    ],
    ids=["a number", "the method", "a word", "nothing"],
)
def test_a_worker_whose_files_are_others_refuses(
    job: StageJob, tmp_path: Path, module: str, old: str, new: str
) -> None:
    copy = tmp_path / "s3t_core"
    shutil.copytree(ROOT / "s3t_core", copy, ignore=shutil.ignore_patterns("__pycache__"))
    if module:
        text = (copy / module).read_text()
        assert old in text
        (copy / module).write_text(text.replace(old, new, 1))
    done = subprocess.run(
        [sys.executable, "-c", TRAIN],
        input=pickle.dumps(job),
        capture_output=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        check=True,
    )
    kind, _, said = done.stdout.decode().partition(" ")
    if module:
        assert kind == "GuaranteeError" and "another release" in said
    else:
        assert kind == "UsageError"
