"""Which packages happen to be installed, or lie on a path, decides no bit of a stage."""

import contextlib
import dataclasses
import importlib
import json
import os
import pkgutil
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.metadata import Distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import safetensors

from s3t_core.domain import SliceId
from s3t_core.errors import GuaranteeError
from s3t_core.learning import installed, jobs, pins, required
from s3t_core.learning.activation_store import ActivationStore
from s3t_core.learning.installed import check_installed, remember_installed
from s3t_core.learning.recipe import make_recipe, wanted
from s3t_core.learning.required import (
    READERS,
    RequiredOnly,
    hide_strangers,
    is_elsewhere,
    is_stranger,
)
from s3t_core.learning.store import LocalStageStore
from s3t_core.records import slice_digest
from s3t_core.slicefile import write_rows
from tests.exactness.system import KEYS, config_for, dataset_of, make_slices
from tests.exactness.test_profile import DEVICE, tiny_job
from tests.tiny import build_mamba
from tests.without_servers import NotInstalled

ROOT = Path(__file__).parents[2]
STRANGER = """
import torch

def causal_conv1d_fn(x, weight, bias=None, activation=None, **options):
    width, length = weight.shape[-1], x.shape[-1]
    padded = torch.nn.functional.pad(x, (width - 1, 0))
    out = bias[None, :, None].expand_as(x)
    for i in reversed(range(width)):
        out = out + padded[..., i:i + length] * weight[None, :, i, None]
    return torch.nn.functional.silu(out)

def causal_conv1d_update(*arguments, **options):
    raise NotImplementedError
"""
"""The same convolution, summed in another order: transformers takes it for Mamba where it can."""
JOB = """
import json, sys
from dataclasses import asdict
from pathlib import Path
{first}
from flows.adapters.runner import ProcessRunner
from s3t_core.canonical import sha256_hex
from s3t_core.errors import S3TError
from s3t_core.learning.recipe import make_recipe, wanted
from s3t_core.learning.store import LocalStageStore
from s3t_core.records import slice_digest
from s3t_core.slicefile import write_rows
from tests.exactness.system import KEYS, config_for, dataset_of, make_slices
from tests.exactness.test_profile import DEVICE, tiny_job
if __name__ == "__main__":
    runner = ProcessRunner()
    try:
        job = tiny_job(
            runner, Path(sys.argv[1]), Path(sys.argv[2]), dict(target_modules=["x_proj", "in_proj"])
        )
        made = runner.train(job)
        print(json.dumps([asdict(job.recipe.profile), job.spec.key, sha256_hex(made.artifact)]))
    except S3TError as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""
IN_PROCESS = """
import sys
from pathlib import Path
from s3t_core.canonical import sha256_hex
from tests.exactness.system import TinySystem, make_slices
system = TinySystem(Path(sys.argv[1]), 1, 2, 1, adapter=dict(target_modules=["x_proj", "in_proj"]))
system.train(make_slices(1, 2))
print(sorted(sha256_hex(a) for a in system.artifacts.values()))
"""


FIRST = {
    "taken by the script": "import causal_conv1d\n"
    "from transformers.models.mamba import modeling_mamba",
    "lies on the path": "",
    "found by a finder of its own": "",
    "another copy of a package that is required": "",
}
"""What the script imports that orders the job."""
FINDER = """
import sys
from importlib.machinery import PathFinder

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "transformers.models.mamba.modeling_mamba":
            import causal_conv1d
        return None

sys.meta_path.insert(0, Finder)
"""
FUTURE = "from __future__ import annotations\n"
BEGINS = ["import causal_conv1d, transformers", "import torch", "import causal_conv1d"]
"""What Python imports at its start: the last one imports torch by itself."""


@pytest.fixture(scope="module")
def mamba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_mamba(tmp_path_factory.mktemp("mamba"))


def _called(script: Path, *arguments: Path, path: Path | None = None) -> str:
    paths = [str(p) for p in (path, ROOT) if p is not None]
    clean = {k: v for k, v in os.environ.items() if not pins.chooses_kernels(k)}
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        cwd=ROOT,
        env={**clean, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


def _job(tmp_path: Path, name: str, mamba: Path, path: Path | None, first: str = "") -> Any:
    (tmp_path / name).mkdir()
    script = tmp_path / f"{name}.py"
    script.write_text(JOB.format(first=first))
    return json.loads(_called(script, mamba, tmp_path / name, path=path))


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "causal_conv1d.py").write_text(STRANGER)
    return folder


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory, mamba: Path) -> Any:
    """What a stage is where no such package is."""
    return _job(tmp_path_factory.mktemp("without"), "plain", mamba, None)


@pytest.mark.slow
@pytest.mark.long_but_first
@pytest.mark.parametrize("how", FIRST)
def test_a_package_that_nothing_requires_changes_no_byte_of_a_stage(
    tmp_path: Path, mamba: Path, strangers: Path, without: Any, how: str
) -> None:
    if how == "found by a finder of its own":
        (strangers / "sitecustomize.py").write_text(FINDER)
    if how == "another copy of a package that is required":
        shutil.copytree(Path(safetensors.__file__).parent, strangers / "safetensors")
        (strangers / "safetensors" / "torch.py").write_text(
            "import sys\nif any('forkserver' in each for each in sys.orig_argv):\n    sys.exit(7)\n"
            + (Path(safetensors.__file__).parent / "torch.py").read_text().replace(FUTURE, "")
        )
    assert len(without) == 3, without
    assert _job(tmp_path, "with", mamba, strangers, FIRST[how]) == without


@pytest.mark.slow
@pytest.mark.long_but_first
@pytest.mark.parametrize("begins", BEGINS)
def test_where_a_library_may_have_taken_one_before_a_job_ends_in_a_sentence(
    tmp_path: Path, mamba: Path, strangers: Path, begins: str
) -> None:
    (strangers / "opt_einsum.py").write_text("")
    (strangers / "sitecustomize.py").write_text(begins)
    kind, told = _job(tmp_path, "begun", mamba, strangers)
    assert kind == "GuaranteeError" and "sitecustomize" in told
    assert "causal_conv1d" in told or "opt_einsum" in told


@pytest.mark.slow
def test_without_it_such_a_package_does_change_them(
    tmp_path: Path, mamba: Path, strangers: Path
) -> None:
    """The stranger above is one."""
    script = tmp_path / "in_process.py"
    script.write_text(IN_PROCESS)
    assert _called(script, mamba) != _called(script, mamba, path=strangers)


@pytest.fixture
def as_it_was() -> Iterator[None]:
    finders, modules = list(sys.meta_path), dict(sys.modules)
    sys.meta_path[:] = [PathFinder if isinstance(f, NotInstalled) else f for f in finders]
    yield
    sys.meta_path[:] = finders
    sys.modules.clear()
    sys.modules.update(modules)


@pytest.mark.usefixtures("as_it_was")
def test_nothing_else_is_found_nor_what_was_imported_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("causal_conv1d", "peft", "a_helper"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [m for m in sys.modules if m.partition(".")[0] in ("peft", "conftest")]:
        monkeypatch.delitem(sys.modules, name)
    before = find_spec("peft")
    assert before is not None and is_elsewhere(before) and find_spec("causal_conv1d")
    importlib.import_module("a_helper")
    monkeypatch.setattr(required, "COMPUTE", frozenset({"a_library_that_is_not_there"}))
    hide_strangers()
    hide_strangers()
    assert not find_spec("causal_conv1d") and not find_spec("a_helper")
    for ask in (importlib.import_module, pkgutil.resolve_name, __import__):
        with pytest.raises(ModuleNotFoundError):
            ask("causal_conv1d")
        with pytest.raises(ModuleNotFoundError):
            ask("a_helper")
    found = find_spec("peft")
    assert found is not None and not is_elsewhere(found) and found.origin != before.origin


@pytest.mark.usefixtures("as_it_was")
def test_what_computes_is_refused_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "peft.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [m for m in sys.modules if m.partition(".")[0] in ("peft", "conftest")]:
        monkeypatch.delitem(sys.modules, name)
    importlib.import_module("peft")
    monkeypatch.setattr(required, "_may_be_taken", lambda _: False)
    with pytest.raises(GuaranteeError, match="expected peft where pip, or Python itself, put it"):
        hide_strangers()


@pytest.mark.slow
def test_a_module_of_pythons_own_that_lies_on_a_path_changes_no_byte_of_a_stage(
    tmp_path: Path, mamba: Path, without: Any
) -> None:
    """One draw more in the shuffle, which orders the rows of a stage."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    own = Path(random.__file__).read_text()
    changed = own.replace(
        "randbelow = self._randbelow\n", "randbelow = self._randbelow; randbelow(2)\n"
    )
    assert changed != own
    (folder / "random.py").write_text(changed)
    found = _job(tmp_path, "with", mamba, folder)
    assert len(without) == 3, without
    assert found == without or (found[0] == "GuaranteeError" and "random" in found[1]), found


@pytest.mark.usefixtures("as_it_was")
@pytest.mark.parametrize("when", ["before", "later"])
def test_pythons_own_modules_come_from_pythons_own_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    (tmp_path / "colorsys.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("colorsys", None)
    monkeypatch.setattr(required, "_may_be_taken", lambda _: False)
    if when == "before":
        importlib.import_module("colorsys")
        with pytest.raises(GuaranteeError, match="expected colorsys where"):
            hide_strangers()
        return
    hide_strangers()
    assert hasattr(importlib.import_module("colorsys"), "hsv_to_rgb")


def _installed_at(place: Path, name: str, version: str) -> Distribution:
    place.mkdir(exist_ok=True)
    (place / f"{name}.py").write_text(f"version = {version!r}")
    info = place / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"{name}.py,,\n{info.name}/METADATA,,\n")
    return Distribution.at(info)


@pytest.mark.usefixtures("as_it_was")
def test_of_a_package_that_is_installed_twice_the_one_whose_version_is_told_of_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another required package lies in a directory that comes first by its name."""
    system, own = tmp_path / "a-system", tmp_path / "venv"
    _installed_at(system, "some_package", "1.0")
    there = [_installed_at(system, "a_helper", "3.0"), _installed_at(own, "some_package", "2.0")]
    monkeypatch.setattr(required, "_required", lambda: there)
    monkeypatch.setattr(required, "_ours", frozenset)
    for cached in (required._placed, required._modules):
        cached.cache_clear()
    try:
        finder = RequiredOnly(PathFinder)
        found = finder.find_spec("some_package")
        assert found is not None and found.origin == str(own / "some_package.py")
        beside = PathFinder.find_spec("some_package", [str(system)])
        assert beside is not None and is_elsewhere(beside) and not is_elsewhere(found)
        assert finder.find_spec("a_helper") is not None
        monkeypatch.syspath_prepend(str(system))
        assert version("some_package") == "1.0", "as whoever asks by the path is told"
        assert required.version_of("Some-Package") == "2.0"
        assert required.version_of("another") == ""
    finally:
        monkeypatch.undo()
        for cached in (required._placed, required._modules):
            cached.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One that computes, as far as this module can tell, with a part that is imported late."""
    folder = tmp_path / "some_numbers"
    folder.mkdir()
    for name in ("__init__", "late"):
        (folder / f"{name}.py").write_text("kept = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(installed, "_tops", lambda: frozenset({"some_numbers"}))
    monkeypatch.setattr(installed, "places_of", lambda _: frozenset({str(tmp_path)}))
    installed._known.cache_clear()
    yield folder
    installed._known.cache_clear()
    for name in [m for m in sys.modules if m.partition(".")[0] == "some_numbers"]:
        del sys.modules[name]


@pytest.mark.parametrize("how", ["as it was", "written over", "replaced", "a new file", "gone"])
@pytest.mark.parametrize("part", ["some_numbers", "some_numbers.late"])
def test_what_an_installation_changes_meanwhile_trains_nothing(
    package: Path, how: str, part: str
) -> None:
    remember_installed()
    file = package / ("__init__.py" if part == "some_numbers" else "late.py")
    if part == "some_numbers":
        importlib.import_module(part)  # it is in memory as it was
    if how == "written over":
        file.write_text("kept = 2\n")
    elif how == "replaced":
        (package / "new").write_text("kept = 2\n")
        (package / "new").replace(file)
    elif how == "a new file":
        (package / "more.py").write_text("")
        importlib.import_module("some_numbers.more")
    importlib.import_module(part)
    if how == "gone":
        file.unlink()
    if how == "as it was":
        check_installed()
        return
    with pytest.raises(GuaranteeError, match="files that an installation changed"):
        check_installed()


def test_a_stage_is_checked_for_it(
    tmp_path: Path, mamba: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed() -> None:
        raise GuaranteeError("files that an installation changed")

    job = tiny_job(_InThisProcess(), mamba, tmp_path, {"target_modules": ["x_proj", "in_proj"]})
    assert jobs.train(job).steps
    monkeypatch.setattr(jobs, "check_installed", changed)
    with pytest.raises(GuaranteeError, match="an installation changed"):
        jobs.train(job)
    with pytest.raises(GuaranteeError, match="an installation changed"):
        tiny_job(_InThisProcess(), mamba, tmp_path, {"target_modules": ["x_proj", "in_proj"]})


@pytest.mark.parametrize("when", ["refused", "killed", "right"])
def test_what_a_stage_that_is_none_kept_of_its_rows_counts_for_nothing(
    tmp_path: Path, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Else the next one trains, under the good key, on what other files had computed."""
    job = _upper_stage(tmp_path, tiny_backbone)
    kept = ActivationStore(tmp_path / "activations", b"k" * 32, 10**9)
    kept.allow({f.digest for f in job.slices})
    job = dataclasses.replace(job, activations=kept)

    def ends() -> None:
        if when != "right":
            raise GuaranteeError("changed") if when == "refused" else KeyboardInterrupt

    monkeypatch.setattr(jobs, "check_installed", ends)
    with pytest.raises(BaseException) if when != "right" else contextlib.nullcontext():
        jobs.train(job)
    files = list(kept.root.glob("*/*.safetensors"))
    seals = list(kept.root.glob("*/*.seal"))
    assert files and len(seals) == (len(files) if when == "right" else 0)


def _upper_stage(folder: Path, backbone: Path) -> jobs.StageJob:
    """Of two blocks the upper one, whose rows' states are computed by what lies below, and kept."""
    found = jobs.describe(jobs.DescribeJob(str(backbone), 1, DEVICE))
    recipe = make_recipe(
        config_for(backbone, 1, 2, 1),
        str(backbone),
        found.digest,
        found.tokenizer_digest,
        found.layers,
        found.profile,
    )
    data = make_slices(1, 2)
    rows = data[SliceId(0, 0)]
    write_rows(folder / "rows.parquet", rows)
    file = jobs.FileRef(folder / "rows.parquet", slice_digest(KEYS, rows))
    spec = wanted(recipe, [(0, 1)], dataset_of(data, 1, 2)).stages[0]
    store = LocalStageStore(folder / "stages", b"k" * 32)
    return jobs.StageJob(recipe, spec, (file,), (), file, store, KEYS)


class _InThisProcess:
    describe = staticmethod(jobs.describe)


def test_what_is_required_is_no_stranger() -> None:
    for name in (
        "s3t_core.learning",
        "flows",
        "tests.tiny",
        "torch.nn",
        "tokenizers",
        "peft",
        "json",
        "pytest",
    ):
        assert not is_stranger(name), name
    for name in ("causal_conv1d", "mamba_ssm", "fla", "mambapy.pscan", "xlstm"):
        assert is_stranger(name), name


def test_nobody_can_tell_where_s3t_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(required, "_NAME", "a-package-that-is-not-there")
    with pytest.raises(GuaranteeError, match="pip install"):
        required._required.__wrapped__()


def test_of_a_requirement_its_marker_and_extras_count() -> None:
    lines = ['a; extra == "x"', 'b; extra == "y"', "c[z]>=1", 'd; python_version < "3"']
    assert list(required._wanted_by(lines, frozenset({"x"}))) == [
        ("a", frozenset()),
        ("c", frozenset({"z"})),
    ]


def test_what_reads_texts_may_be_there() -> None:
    assert {"sentencepiece", "tiktoken"} <= set(READERS)
