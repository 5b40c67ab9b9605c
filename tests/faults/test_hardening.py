"""What processes of ours begin with: no code of the directory that they stand in, no image of their
memory when they crash."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.hardening import harden

ROOT = Path(__file__).parents[2]
_STANDARD = ("struct", "selectors", "multiprocessing", "socket", "pickle", "signal", "threading")
"""Modules of Python that a child imports as it starts, and that may lie where one stands."""
_BEGIN = {
    "a command": "from flows.hardening import harden; harden()",
    "a workspace": "from pathlib import Path; from flows.settings import prepare_environment; "
    "prepare_environment(Path(sys.argv[1]))",
}
_CHILDREN = {
    "a stage": "from flows.adapters.runner import ProcessRunner; "
    "from s3t_core.learning.jobs import DescribeJob; "
    "ProcessRunner().describe(DescribeJob(sys.argv[2], 1))",
    "a slice": "from flows.adapters.processes import mapping\n"
    "    with mapping(True) as each: list(each(str, [1, 2]))",
    "a module": "from flows.adapters.child import Child; "
    "Child('flows.adapters.git', cwd=Path.cwd(), env=os.environ, log=Path('log'))"
    "._process.wait()",
}


def _hostile(folder: Path) -> Path:
    """A directory with modules that leave a mark when they are imported."""
    mark = folder / "mark"
    folder.mkdir()
    code = f"open({str(mark)!r}, 'a').write(__name__ + '\\n')\n"
    for name in _STANDARD:
        (folder / f"{name}.py").write_text(code)
    for name in ("flows", "s3t_core"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)
    return mark


def _run(
    script: str, cwd: Path, *arguments: str, path: str = "{root}"
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    command = cwd.parent / "command" / "s3t.py"
    command.parent.mkdir(exist_ok=True)
    command.write_text(script)
    return subprocess.run(
        [sys.executable, str(command), *arguments],
        cwd=cwd,
        env=environment | {"PYTHONPATH": path.format(root=ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.long_but_first
@pytest.mark.parametrize("path", ["{root}:", ":{root}", "{root}::", "{root}:.", "{root}:sub"])
def test_an_entry_too_many_in_pythonpath_is_no_way_in(
    tmp_path: Path, tiny_backbone: Path, path: str
) -> None:
    """Neither for a command nor for its children."""
    hostile = tmp_path / "hostile"
    mark = _hostile(hostile)
    _hostile(hostile / "sub")
    for folder in (hostile, hostile / "sub"):
        for name in ("flows", "s3t_core"):  # the first Python would take its own code from there
            shutil.rmtree(folder / name)
        (folder / "sitecustomize.py").write_text((folder / "struct.py").read_text())
        (folder / "colorsys.py").write_text((folder / "struct.py").read_text())
    script = (
        "import os, sys\nfrom pathlib import Path\n"
        "if __name__ == '__main__':\n"
        "    from flows.hardening import harden; harden()\n"
        "    for mark in (Path('mark'), Path('sub/mark')): mark.unlink(missing_ok=True)\n"
        "    import colorsys\n"
        f"    {_CHILDREN['a stage']}\n"
    )
    done = _run(script, hostile, str(tmp_path), str(tiny_backbone), path=path)
    marks = [m for m in (mark, hostile / "sub" / "mark") if m.exists()]
    assert not marks, [m.read_text() for m in marks]
    assert done.returncode == 0, done.stderr[-1500:]


@pytest.mark.long_but_first(every=3)
@pytest.mark.parametrize("child", _CHILDREN)
@pytest.mark.parametrize("begin", _BEGIN)
def test_no_child_takes_code_from_where_one_stands(
    tmp_path: Path, tiny_backbone: Path, begin: str, child: str
) -> None:
    mark = _hostile(tmp_path / "hostile")
    script = (
        "import os, sys\nfrom pathlib import Path\n"
        f"if __name__ == '__main__':\n    {_BEGIN[begin]}\n    {_CHILDREN[child]}\n"
    )
    done = _run(script, mark.parent, str(tmp_path), str(tiny_backbone))
    assert not mark.exists(), mark.read_text()
    assert done.returncode == 0, done.stderr[-1500:]


def test_the_command_line_begins_so(tmp_path: Path) -> None:
    script = (
        "import os, resource\n"
        "from flows.cli import app, main\n"
        "def told(**_):\n"
        "    limit = resource.getrlimit(resource.RLIMIT_CORE)[0]\n"
        "    print([os.environ.get('PYTHONSAFEPATH'), limit], flush=True)\n"
        "app.app = told\n"
        "main()\n"
    )
    done = _run(script, tmp_path)
    assert f"['1', {_least()}]" in done.stdout, done.stderr[-500:]


@pytest.mark.parametrize("name", ["PATH", "LD_LIBRARY_PATH"])
@pytest.mark.parametrize("told", [":{}", "{}:", "{}::.", "bin:{}", "./:{}"])
def test_nothing_is_looked_for_where_one_stands(
    monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    """A colon too many (`PATH=:$PATH`): programs, and libraries of children."""
    kept = os.pathsep.join(("/usr/bin", "/bin"))
    monkeypatch.setenv(name, told.format(kept))
    harden()
    assert os.environ[name] == kept
    monkeypatch.setenv(name, ".")
    harden()
    assert name not in os.environ


def _least() -> int:
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    return 1 if most == resource.RLIM_INFINITY else min(1, most)


@pytest.mark.parametrize("begin", [None, *_BEGIN])
def test_a_crash_leaves_no_image_of_memory(tmp_path: Path, begin: str | None) -> None:
    """Without a word of ours the kernel writes one here, by its own settings: what is taken away is
    there to be taken away."""
    if Path("/proc/sys/kernel/core_pattern").read_text().strip() not in ("core", "core.%p"):
        pytest.skip("the kernel of this machine puts them elsewhere")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        pytest.skip("this machine allows none")
    script = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)\n"
        f"{_BEGIN[begin] if begin else ''}\n"
        "if os.fork() == 0:\n    os.abort()\n"
        "os.wait()\n"
    )
    stand = tmp_path / "stand"
    stand.mkdir()
    done = _run(script, stand, str(tmp_path))
    assert done.returncode == 0, done.stderr[-500:]
    assert bool(list(stand.glob("core*"))) is (begin is None)


_S3T = "from flows.cli import main; main()"


@pytest.mark.parametrize("arguments", [["status"], ["init"], ["--help"], ["verify", "x.json"]])
def test_a_directory_that_was_removed_is_told(tmp_path: Path, arguments: list[str]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"import os; os.rmdir({str(gone)!r}); {_S3T}"
    told = _run(script, gone, *arguments)
    assert told.returncode == 2 and "Traceback" not in told.stderr
    assert "expected to run in a directory that is there" in told.stderr


def test_names_that_cannot_be_said_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a locale without Unicode, Python reads names of files in another way."""
    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
        monkeypatch.setenv(name, value)
    told = _run(_S3T, tmp_path, "init", "wörkspace")
    assert told.returncode == 2 and "Traceback" not in told.stderr
    assert "set LC_ALL=C.UTF-8" in told.stderr and not any(tmp_path.glob("w*"))


@pytest.mark.parametrize("level", ["1", "2"])
def test_a_python_without_docstrings_is_told_before_a_library_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    monkeypatch.setenv("PYTHONOPTIMIZE", level)
    told = _run(_S3T, tmp_path, "init", "w")
    assert told.returncode == (2 if level == "2" else 0) and "Traceback" not in told.stderr
    assert ("keeps docstrings" in told.stderr) is (level == "2") is not (tmp_path / "w").exists()
