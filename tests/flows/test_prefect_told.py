"""Prefect keeps what it is told where no erasure reaches it, so it is told of nobody: neither by
the name of a source, nor by what an error quotes, by whoever begins a run."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import prefect
import pytest
from prefect import get_client
from prefect.flow_engine import run_flow
from prefect.settings import (
    PREFECT_API_DATABASE_CONNECTION_URL,
    PREFECT_DEBUG_MODE,
    PREFECT_LOCAL_STORAGE_PATH,
    PREFECT_LOGGING_LEVEL,
    temporary_settings,
)

from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.quiet import flow, outcome_of, task
from flows.workspace.workspace import Workspace
from s3t_core.errors import DataError, GuaranteeError, UsageError
from tests.flows.conftest import CANARY, people, tiny_config, write_csv
from tests.flows.test_cli import environment

pytestmark = pytest.mark.slow
Make = Callable[..., Workspace]
ROOT = Path(__file__).parents[2]


def _kept() -> str:
    """Everything that Prefect's server tells, and the bytes of what it stores."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs()
        told = [r.model_dump(mode="json") for r in runs]
        told += [r.model_dump(mode="json") for r in client.read_task_runs()]
        told += [line.model_dump(mode="json") for line in client.read_logs(limit=200)]
        told += [s.model_dump(mode="json") for r in runs for s in client.read_flow_run_states(r.id)]
    assert runs
    stored = Path(PREFECT_LOCAL_STORAGE_PATH.value())
    database = Path(PREFECT_API_DATABASE_CONNECTION_URL.value().partition("///")[2])
    files = [
        p for p in (*stored.rglob("*"), *database.parent.glob(f"{database.name}*")) if p.is_file()
    ]
    assert database in files
    return json.dumps(told) + "".join(p.read_bytes().decode("latin-1") for p in files)


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A source whose name, and one of whose labels, are a person's, with no row that can be
    taken."""
    rows = people()
    rows[0]["who"] = ""
    for row in rows[1:]:
        row["kind"] = CANARY
    return write_csv(tmp_path / f"{CANARY}.csv", rows)


def _by_a_worker(place: Workspace, source: str) -> Any:
    """As Prefect does for a run that a deployment began, with what its parameters say."""

    @prefect.flow(name="ingest")
    def theirs(workspace: str, source: str) -> None:
        """What the API is asked for; no worker has it."""

    parameters = {"workspace": str(place.root), "source": source}
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(theirs, parameters=parameters)
    return run_flow(ingest, flow_run=run, parameters=parameters)


def test_neither_the_name_of_a_source_nor_what_it_says_comes_to_prefect(
    make_place: Make,
    named: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    prefect_server: None,
) -> None:
    place = make_place()
    with pytest.raises(DataError, match=CANARY):  # whoever asks is told whole
        ingest(str(place.root), str(named))
    assert CANARY not in capfd.readouterr().err
    named.rename(place.root / "private.csv")
    (place.root / "sources.txt").write_text(f"\n{place.root}/private.csv\n")
    with pytest.raises(Exception, match="DataError: what it says may quote somebody"):
        _by_a_worker(place, "@sources.txt")
    assert CANARY not in "".join(capfd.readouterr())  # a worker's output is a log
    write_csv(place.root / "private.csv", people())
    assert _by_a_worker(place, "@sources.txt").value["records"]
    assert CANARY not in _kept()


@pytest.mark.long_but_first
@pytest.mark.parametrize("source", ["private.csv", "@../x", "@nowhere.txt", "@", "/etc/hostname"])
def test_a_run_that_prefect_begins_takes_no_source_but_from_a_file(
    make_place: Make, source: str, capfd: pytest.CaptureFixture[str], prefect_server: None
) -> None:
    place = make_place()
    with pytest.raises(Exception, match="UsageError"):
        _by_a_worker(place, source)
    assert f"{source!r}" not in "".join(capfd.readouterr()) and place.ledger.state().dataset is None


@pytest.mark.long
def test_errors_reach_who_asked_and_their_messages_not_prefect(prefect_server: None) -> None:
    """Of a task that is called, of one that is submitted, of the flow; what quotes nobody is told
    as it is."""
    secret = "of-the-canary-person-4711"

    def fails(kind: type[Exception]) -> None:
        raise kind(f"got {secret}")

    called, submitted = task(name="called")(fails), task(name="submitted")(fails)

    @flow(name="tried")
    def tried(how: str, kind: Any) -> None:
        if how == "called":
            called(kind)
        elif how == "named":
            called.with_options(task_run_name="x")(kind)
        elif how == "waited for":
            submitted.submit(kind).result()
        elif how == "submitted":
            outcome_of(submitted.submit(kind))
        else:
            fails(kind)

    for kind in (DataError, UsageError, ValueError):
        for how in ("called", "named", "submitted", "waited for", "raised"):
            with pytest.raises(kind, match=secret):
                tried(how, kind)
    with pytest.raises(GuaranteeError, match="a stage"):
        flow(name="guarded")(lambda: (_ for _ in ()).throw(GuaranteeError("expected a stage")))()
    kept = _kept()
    assert secret not in kept and "expected a stage" in kept and '"called"' not in kept


def test_what_flows_and_tasks_return_is_told_in_no_mode(
    prefect_server: None, caplog: pytest.LogCaptureFixture
) -> None:
    """In its debug mode Prefect logs states with their results."""
    secret = "of-the-canary-person-4711"

    @task(name="read")
    def read() -> list[dict[str, str]]:
        return [{"what": secret}]

    @flow(name="reads")
    def reads() -> Any:
        return [read(), outcome_of(read.submit()), read.with_options(task_run_name="x")()]

    with temporary_settings({PREFECT_DEBUG_MODE: True, PREFECT_LOGGING_LEVEL: "DEBUG"}):
        assert reads() == [[{"what": secret}]] * 3
    assert secret not in caplog.text and secret not in _kept()
    assert "Completed" in caplog.text


@pytest.mark.long_but_first
@pytest.mark.parametrize("how", ["variable", "prefect.toml", ".env", "pyproject.toml"])
def test_no_setting_of_prefects_turns_its_debug_mode_on(
    workspace: Path, tmp_path: Path, how: str
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    text = {
        "prefect.toml": "debug_mode = true\n",
        ".env": "PREFECT_DEBUG_MODE=true\n",
        "pyproject.toml": "[tool.prefect]\ndebug_mode = true\n",
    }
    if how in text:
        (here / how).write_text(text[how])
    asked = (
        "import os, sys; from pathlib import Path; from flows.settings import prepare_environment; "
        "prepare_environment(Path(sys.argv[1])); from prefect.settings import PREFECT_DEBUG_MODE "
        "as mode; print(mode.value())"
    )
    variables = (
        environment()
        | {"PYTHONPATH": str(ROOT)}
        | ({"PREFECT_DEBUG_MODE": "1"} if how == "variable" else {})
    )
    done = subprocess.run(
        [sys.executable, "-c", asked, str(workspace)],
        cwd=here,
        env=variables,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "False"


def test_no_variable_has_prefect_keep_what_libraries_log_or_what_is_printed(
    workspace: Path,
) -> None:
    """Of a picture, say, what its metadata tells: where it was taken, by whom."""
    told = {
        "PREFECT_LOGGING_EXTRA_LOGGERS": "PIL",
        "PREFECT_LOGGING_LOG_PRINTS": "true",
        "PREFECT_LOGGING_SETTINGS_PATH": "/elsewhere/logging.yml",
        "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
        "PREFECT_LOGGING_LOGGERS_PREFECT_HANDLERS": "api",
        "PREFECT_LOGGING_TO_API_ENABLED": "true",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "prefect_logging_settings_path": "/elsewhere/logging.yml",
        "Prefect_Home": "/elsewhere",
        "prefect_debug_mode": "true",
        "PREFECT_PROFILES_PATH": "/elsewhere/profiles.toml",
    }
    asked = (
        "import os, sys; from pathlib import Path; from flows.settings import prepare_environment; "
        "prepare_environment(Path(sys.argv[1])); import json; "
        "from prefect.settings import get_current_settings; s = get_current_settings().logging; "
        "print(json.dumps([sorted(k for k in os.environ if k.startswith('PREFECT_LOGGING_')), "
        "s.extra_loggers, s.log_prints, s.level, [k for k in os.environ if 'elsewhere' in "
        "os.environ[k]], get_current_settings().debug_mode]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked, str(workspace)],
        env=environment() | {"PYTHONPATH": str(ROOT)} | told,
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [
        [
            "PREFECT_LOGGING_EXTRA_LOGGERS",
            "PREFECT_LOGGING_LEVEL",
            "PREFECT_LOGGING_LOG_PRINTS",
            "PREFECT_LOGGING_TO_API_ENABLED",
        ],
        [],
        False,
        "DEBUG",
        [],
        False,
    ]


@pytest.fixture
def workspace(tmp_path: Path, tiny_backbone: Path) -> Iterator[Path]:
    from flows.workspace.creating import create_workspace

    yield create_workspace(tmp_path / "w", tiny_config(tiny_backbone), b"\x05" * 32).root
    subprocess.run(
        [sys.executable, "-m", "flows.cli", "stop", "--workspace", str(tmp_path / "w")],
        cwd=ROOT,
        env=environment(),
        check=False,
        capture_output=True,
    )


@pytest.mark.long
def test_a_source_that_is_named_by_a_person_stops_no_erasure(
    workspace: Path, tmp_path: Path
) -> None:
    """With the commands, and the server that they start."""

    def s3t(*arguments: str, told: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *arguments, "--workspace", str(workspace)],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            input=told,
            check=False,
        )

    source = write_csv(tmp_path / f"{CANARY}.csv", people(canary=True))
    assert s3t("ingest", str(source)).returncode == 0
    assert s3t("request", "--stdin", told=f"{CANARY}\n").returncode == 0
    done = s3t("erase")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((workspace / ".s3t" / "certificates").glob("*.json"))) == 1
