"""One numeric profile: what a machine computes stands in every key, a shell decides nothing,
nothing mixes two."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from s3t_core.domain import Release, SliceId
from s3t_core.errors import GuaranteeError
from s3t_core.learning import pins
from s3t_core.learning.activation_store import ActivationStore
from s3t_core.learning.activations import Activations, states_key
from s3t_core.learning.backbone import find_backbone
from s3t_core.learning.fingerprint import fingerprint
from s3t_core.learning.recipe import NumericProfile, Recipe
from s3t_core.learning.release import (
    FORMAT,
    check_one_recipe,
    parse_release_document,
    recipe_from_json,
    recipe_to_json,
)
from s3t_core.learning.stage import numeric_profile
from s3t_core.release_json import release_to_json
from tests.exactness.system import DEVICE, KEYS, TinySystem, make_slices
from tests.exactness.test_activations import _store

ROOT = Path(__file__).parents[2]
OTHER_KERNELS = {
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "ATEN_CPU_CAPABILITY": "default",
    "NVIDIA_TF32_OVERRIDE": "1",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
}
NEEDED = pins.FIXED if DEVICE == "cuda" else {}
"""Without these, torch refuses to train on a GPU where nothing pinned them."""


def in_a_shell(script: str, backbone: Path, variables: dict[str, str]) -> dict[str, Any]:
    """What `script` prints as JSON, in a process of a shell with these variables and no others that
    choose kernels."""
    clean = {k: v for k, v in os.environ.items() if not pins.chooses_kernels(k)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(backbone)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**clean, **variables, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


UNPINNED = """
import json, sys
from pathlib import Path
from s3t_core.canonical import sha256_hex
from tests.exactness.system import TinySystem, make_slices
stages = {}
for dtype in ("float32", "bfloat16"):
    system = TinySystem(Path(sys.argv[1]), 1, 2, 1, dtype)
    system.train(make_slices(1, 2))
    stages[dtype] = sorted(sha256_hex(a) for a in system.artifacts.values())
print(json.dumps({"fingerprint": system.recipe.profile.fingerprint, "stages": stages}))
"""


@pytest.fixture(scope="module")
def wide_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers as wide as MiniLM: products of the shapes that real stages
    have."""
    from transformers import BertConfig, BertModel

    from tests.tiny import WORDS, build_backbone

    path = build_backbone(tmp_path_factory.mktemp("wide"), layers=2)
    torch.manual_seed(1)
    BertModel(
        BertConfig(
            vocab_size=4 + len(WORDS),
            hidden_size=384,
            num_hidden_layers=2,
            num_attention_heads=12,
            intermediate_size=1536,
            max_position_embeddings=64,
        )
    ).save_pretrained(path)
    return path


@pytest.mark.long
@pytest.mark.slow
def test_a_variable_that_changes_the_bytes_of_a_stage_changes_the_fingerprint(
    wide_backbone: Path,
) -> None:
    plain, again = (in_a_shell(UNPINNED, wide_backbone, NEEDED) for _ in range(2))
    assert plain == again
    for name, value in OTHER_KERNELS.items():
        other = in_a_shell(UNPINNED, wide_backbone, {**NEEDED, name: value})
        if other["stages"] != plain["stages"]:
            assert other["fingerprint"] != plain["fingerprint"], name


PINNED = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from flows.adapters.runner import ProcessRunner
from s3t_core.canonical import sha256_hex
from tests.exactness.test_profile import tiny_job
runner = ProcessRunner()
if __name__ == "__main__":
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        job = tiny_job(runner, Path(sys.argv[1]), Path(folder))
        outcome = runner.train(job)
    print(json.dumps({"profile": asdict(job.recipe.profile), "key": job.spec.key,
                      "bytes": sha256_hex(outcome.artifact)}))
"""


def tiny_job(
    runner: Any, backbone: Path, folder: Path, adapter: dict[str, Any] | None = None
) -> Any:
    """A stage of a few rows, for a process of its own; the profile is the one that such a process
    has."""
    from s3t_core.learning.jobs import DescribeJob, FileRef, StageJob
    from s3t_core.learning.recipe import make_recipe, wanted
    from s3t_core.learning.store import LocalStageStore
    from s3t_core.records import slice_digest
    from s3t_core.slicefile import write_rows
    from tests.exactness.system import config_for, dataset_of

    found = runner.describe(DescribeJob(str(backbone), 1, DEVICE))
    recipe = make_recipe(
        config_for(backbone, 1, 1, 1, adapter=adapter),
        str(backbone),
        found.digest,
        found.tokenizer_digest,
        found.layers,
        found.profile,
    )
    data = make_slices(1, 1)
    write_rows(folder / "rows.parquet", data[SliceId(0, 0)])
    file = FileRef(folder / "rows.parquet", slice_digest(KEYS, data[SliceId(0, 0)]))
    spec = wanted(recipe, [(0,)], dataset_of(data, 1, 1)).stages[0]
    return StageJob(recipe, spec, (file,), (), file, LocalStageStore(folder / "stages"), KEYS)


@pytest.mark.slow
@pytest.mark.minutes
def test_two_shells_with_other_variables_get_the_same_profile_key_and_bytes(
    wide_backbone: Path,
) -> None:
    other = OTHER_KERNELS | {
        "OMP_NUM_THREADS": "2",
        "OMP_THREAD_LIMIT": "2",
        "MKL_VARIABLE_OF_TOMORROW": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":0:0",
    }
    assert in_a_shell(PINNED, wide_backbone, other) == in_a_shell(PINNED, wide_backbone, {})


FOREIGN = """
import json, multiprocessing, sys
from flows.adapters.runner import ProcessRunner
from s3t_core.errors import S3TError
from s3t_core.learning.jobs import DescribeJob
if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    process = context.Process(target=print)
    process.start()
    process.join()
    try:
        ProcessRunner().describe(DescribeJob(sys.argv[1], 1))
        print(json.dumps({"refused": ""}))
    except S3TError as error:
        print(json.dumps({"refused": str(error)}))
"""


@pytest.mark.slow
def test_a_process_in_which_torch_may_have_read_such_a_variable_refuses(
    tiny_backbone: Path,
) -> None:
    found = in_a_shell(FOREIGN, tiny_backbone, {"MKL_CBWR": "COMPATIBLE"})
    assert "MKL_CBWR" in found["refused"] and "start the command without it" in found["refused"]
    assert in_a_shell(FOREIGN, tiny_backbone, {}) == {"refused": ""}


@pytest.mark.long_but_first
@pytest.mark.parametrize("how", ["sitecustomize", "usercustomize", "a broken sitecustomize"])
def test_where_python_imports_torch_at_its_start_a_job_ends_in_a_sentence(
    tmp_path: Path, tiny_backbone: Path, how: str
) -> None:
    """The fork server is such a Python too: what it would raise, nobody hears."""
    name = how.removeprefix("a broken ")
    (tmp_path / f"{name}.py").write_text(
        "import torch\n"
        if "broken" not in how
        else ("import sys\nif any('forkserver' in a for a in sys.orig_argv):\n    sys.exit(3)\n")
    )
    (tmp_path / "job.py").write_text(CUSTOMIZED)
    clean = {k: v for k, v in os.environ.items() if not pins.chooses_kernels(k)}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "job.py"), str(tiny_backbone)],
        cwd=ROOT,
        env={**clean, "MKL_CBWR": "COMPATIBLE", "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr or "broken" in how, "Python tells of its own start itself"
    told = json.loads(done.stdout.splitlines()[-1])
    if "broken" in how:
        assert told[0] == "TrainingError" and "could not be started" in told[1]
    elif how == "sitecustomize" or told:  # usercustomize is off in a virtual environment
        assert (
            told[0] == "GuaranteeError"
            and "MKL_CBWR" in told[1]
            and "start the command without it" in told[1]
        )


CUSTOMIZED = """
import json, sys
from flows.adapters.runner import ProcessRunner
from s3t_core.errors import S3TError
from s3t_core.learning.jobs import DescribeJob
if __name__ == "__main__":
    try:
        ProcessRunner().describe(DescribeJob(sys.argv[1], 1))
        print("[]")
    except S3TError as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""


def test_variables_are_known_by_how_they_begin_and_what_cannot_change_a_result_stays() -> None:
    for name in (
        *OTHER_KERNELS,
        "ONEDNN_DEFAULT_FPMATH_MODE",
        "DNNL_CPU_ISA_HINTS",
        "_ONEDNN_FORCE_MAX_PARTITION_POLICY",
        "_DNNL_DISABLE_COMPILER_BACKEND",
        "DAL_BLAS_COMPUTE_MODE",
        "LRU_CACHE_CAPACITY",
        "MKL_CBWR",
        "MKL_DYNAMIC",
        "OMP_DYNAMIC",
        "KMP_DETERMINISTIC_REDUCTION",
        "NVIDIA_TF32_OVERRIDE",
        "CUBLASLT_WORKSPACE_SIZE",
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
        "NPY_DISABLE_CPU_FEATURES",
        "FBGEMM_ENABLE_INSTRUCTIONS",
    ):
        assert pins.chooses_kernels(name), name
    for name in (
        "OPENBLAS_CORETYPE",
        "OMP_WAIT_POLICY",
        "CUDA_VISIBLE_DEVICES",
        "HF_HOME",
        "PATH",
        "TMPDIR",
    ):
        assert not pins.chooses_kernels(name), name


def test_a_fingerprint_leaves_the_process_as_it_was_and_tells_threads_apart() -> None:
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.random.get_rng_state(),
    )
    fingerprint.cache_clear()
    first = fingerprint(1)
    fingerprint.cache_clear()
    torch.manual_seed(7)
    torch.set_num_threads(2)
    with torch.no_grad():
        assert fingerprint(1) == first
    torch.set_num_threads(before[0])
    torch.random.set_rng_state(before[2])
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[:2]
    assert len(first) == 64


def test_no_number_of_the_fingerprint_is_lost_in_an_overflow() -> None:
    from s3t_core.learning.fingerprint import _computed

    assert all(bool(torch.isfinite(tensor).all()) for tensor in _computed("cpu"))


def test_every_part_of_the_profile_stands_in_stage_keys_and_in_those_of_kept_activations(
    tiny_backbone: Path,
) -> None:
    recipe = TinySystem(tiny_backbone, 1, 1, 1).recipe
    others = [
        replace(recipe, profile=_changed(recipe.profile, f.name)) for f in fields(NumericProfile)
    ]
    assert {"fingerprint", "safetensors", "numpy", "accelerate", "cpu_vendor"} <= {
        f.name for f in fields(NumericProfile)
    }
    assert len({r.stage_key(0, (0,), ("d",), ()) for r in (recipe, *others)}) == len(others) + 1
    assert len({states_key(r, "d", 1, 5) for r in (recipe, *others)}) == len(others) + 1
    for other, field in zip(others, fields(NumericProfile), strict=True):
        assert recipe.profile.differences(other.profile).startswith(f"{field.name} ")
    assert recipe.profile.differences(recipe.profile) == ""


def _changed(profile: NumericProfile, name: str) -> NumericProfile:
    there = getattr(profile, name)
    other = (
        not there if isinstance(there, bool) else there + 1 if isinstance(there, int) else "another"
    )
    return replace(profile, **{name: other})


def _elsewhere(recipe: Recipe) -> Recipe:
    """The same recipe on a machine that computes something else."""
    return replace(recipe, profile=replace(recipe.profile, fingerprint="0" * 64))


def test_activations_that_were_kept_under_another_profile_are_never_used(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    data = make_slices(1, 3)
    store = _store(tmp_path, data)
    plain = TinySystem(tiny_backbone, 1, 3, 1)
    plain.train(data)
    TinySystem(tiny_backbone, 1, 3, 1, activations=Activations(store)).train(data)
    _spoil(store)
    here = TinySystem(tiny_backbone, 1, 3, 1, activations=Activations(store))
    here.train(data)
    assert sorted(here.artifacts.values()) != sorted(
        plain.artifacts.values()
    )  # what is kept and sealed is used
    other = TinySystem(tiny_backbone, 1, 3, 1, activations=Activations(store))
    other.recipe = _elsewhere(other.recipe)
    other.train(data)
    assert sorted(other.artifacts.values()) == sorted(plain.artifacts.values())


def _spoil(store: ActivationStore) -> None:
    """Other states under the names and seals of this profile: as another machine would have
    computed them."""
    for path in store.root.glob("*/*.safetensors"):
        content = bytearray(path.read_bytes())
        content[-64:] = bytes(64)
        path.write_bytes(content)
        digest = hashlib.sha256(content).digest()
        path.with_suffix(".seal").write_bytes(store._seal(path.stem, digest))


def test_a_release_is_of_one_recipe_wherever_its_stages_come_from(tiny_backbone: Path) -> None:
    data = make_slices(2, 3) | {SliceId(0, 0): []}  # with void stages
    system = TinySystem(tiny_backbone, 2, 3, 3)
    release = system.release(system.plan(data))
    cut = replace(
        release,
        replicas=tuple(
            replace(r, stages=r.stages[: i % 3]) for i, r in enumerate(release.replicas)
        ),
    )
    for whole in (release, cut):  # an erasure only takes stages away
        check_one_recipe(whole, system.recipe)
        assert parse_release_document(_document(whole, system.recipe)) == (whole, system.recipe)
    other = TinySystem(tiny_backbone, 2, 3, 3)
    other.recipe = _elsewhere(system.recipe)
    theirs = other.release(other.plan(data))
    for mixed in (
        replace(release, replicas=(*release.replicas[:-1], theirs.replicas[-1])),
        replace(
            release,
            replicas=(
                *release.replicas[:-1],
                replace(
                    release.replicas[-1],
                    stages=(*release.replicas[-1].stages[:-1], theirs.replicas[-1].stages[-1]),
                ),
            ),
        ),
        theirs,
    ):
        with pytest.raises(GuaranteeError, match="one recipe and numeric profile"):
            check_one_recipe(mixed, system.recipe)
        with pytest.raises(GuaranteeError, match="s3t retrain"):
            parse_release_document(_document(mixed, system.recipe))


def _document(release: Release, recipe: Recipe) -> dict[str, Any]:
    return {"format": FORMAT, "release": release_to_json(release), "recipe": recipe_to_json(recipe)}


def test_a_recipe_that_an_earlier_release_recorded_is_read_and_vouches_for_no_stage(
    tiny_backbone: Path,
) -> None:
    system = TinySystem(tiny_backbone, 1, 1, 1)
    release = system.release(system.plan(make_slices(1, 1)))
    document = recipe_to_json(system.recipe)
    old = document | {
        "profile": {k: v for k, v in document["profile"].items() if k != "fingerprint"}
    }
    del old["method"]
    found = recipe_from_json(old)
    assert (found.method, found.profile.fingerprint) == ("", "")
    with pytest.raises(GuaranteeError, match="s3t retrain"):
        check_one_recipe(release, found)


WAITING = """
import os, sys
from s3t_core.learning.pins import wait_without_spinning
wait_without_spinning(os.environ)
from s3t_core.learning.backbone import find_backbone
from s3t_core.learning.fingerprint import fingerprint
print(fingerprint(2))
"""


@pytest.mark.slow
def test_threads_wait_asleep_unless_the_operator_says_otherwise_and_no_byte_depends_on_it() -> None:
    environment: dict[str, str] = {}
    pins.pin(environment)
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    for own in ({"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "100"}):
        environment = dict(own)
        pins.wait_without_spinning(environment)
        assert environment == own
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    told = [
        subprocess.run(
            [sys.executable, "-c", WAITING],
            capture_output=True,
            text=True,
            check=True,
            env={**clean, **own, "OMP_DISPLAY_ENV": "TRUE"},
        )
        for own in ({}, {"OMP_WAIT_POLICY": "ACTIVE"})
    ]
    assert (
        "OMP_WAIT_POLICY = 'PASSIVE'" in told[0].stderr
        and "OMP_WAIT_POLICY = 'ACTIVE'" in told[1].stderr
    )
    assert told[0].stdout == told[1].stdout


def test_what_reads_texts_stands_in_the_profile_whatever_the_tokenizer_is_made_of(
    tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer written in Python asks Python's tables of characters, and packages that come
    beside transformers."""
    import tokenizers
    from transformers import ByT5Tokenizer

    fast = find_backbone(str(tiny_backbone))
    assert numeric_profile(1, "cpu", fast).tokenizers == tokenizers.__version__
    shutil.copytree(tiny_backbone, tmp_path / "slow")
    for path in (tmp_path / "slow").glob("*token*"):
        path.unlink()
    ByT5Tokenizer().save_pretrained(tmp_path / "slow")
    slow = find_backbone(str(tmp_path / "slow"))
    told = numeric_profile(1, "cpu", slow).tokenizers
    assert told.startswith(f"python {platform.python_version()}") and "regex " in told
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.0")
    assert numeric_profile(1, "cpu", slow).tokenizers != told
    assert numeric_profile(1, "cpu", fast).tokenizers == tokenizers.__version__


@pytest.fixture
def flushed() -> Iterator[None]:
    """The CPU takes numbers too small to be normal for zero, as a library had it that was built for
    speed; no variable says so."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU has no such switch")
    assert _halved() == 0
    yield
    torch.set_flush_denormal(False)


def _halved() -> float:
    return float(torch.tensor([2e-38]) * 0.25)


@pytest.mark.usefixtures("flushed")
def test_a_stage_computes_with_small_numbers_whatever_a_library_turned_over(
    tiny_backbone: Path,
) -> None:
    system = TinySystem(tiny_backbone, 1, 1, 1)
    torch.set_flush_denormal(True)  # the fingerprint of its profile turned it back
    system.train(make_slices(1, 1))
    assert _halved() > 0


@pytest.mark.usefixtures("flushed")
def test_a_fingerprint_is_of_what_a_stage_computes_so() -> None:
    fingerprint.cache_clear()
    fingerprint(1)
    assert _halved() > 0
