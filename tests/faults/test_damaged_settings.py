"""Settings and state files in another encoding, damaged or no files: each is refused in words, none
in a traceback."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from flows import settings
from flows.adapters import prefect_server, shared_prefect
from flows.adapters.locks import workspace_lock
from flows.adapters.shared_prefect import SharedServer
from flows.cli.app import app
from flows.cli.base import run_flow
from flows.use_cases import migrating
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config, parse_config, render_config
from s3t_core.errors import Busy, OrchestrationError, UsageError, WorkspaceError
from s3t_core.files import locked
from tests.waiting import fails_after

DEEP = "[" * 100_000
SETTINGS = {
    "Latin-1": "[system]\nname = 'caf\u00e9'\n".encode("latin-1"),
    "UTF-16": "[system]\n".encode("utf-16"),
    "deep": f"a = {DEEP}".encode(),
    "NUL": b"\0",
    "a number of 5000 digits": b"a = " + b"9" * 5000,
}


@pytest.mark.parametrize("content", SETTINGS.values(), ids=SETTINGS)
def test_settings_that_are_no_utf8_toml_are_refused_in_words(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s3t.toml").write_bytes(content)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".s3t" / "prefect"))
    asks: list[Callable[[], object]] = [
        lambda: Workspace(tmp_path),
        lambda: create_workspace(tmp_path, Config()),
        settings.start_prefect,
    ]
    for ask in asks:
        with pytest.raises(UsageError, match=r"expected s3t.toml to be"):
            ask()
    with pytest.raises(
        UsageError, match="UTF-8, got another encoding" if not content.isascii() else "TOML"
    ):
        Workspace(tmp_path)
    for command in (["init", str(tmp_path / "new")], ["migrate", "--workspace", str(tmp_path)]):
        found = CliRunner().invoke(app, [*command, "--settings", str(tmp_path / "s3t.toml")])
        assert isinstance(found.exception, UsageError)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_mark_that_some_editors_write_before_utf8_is_no_matter(mark: bytes) -> None:
    assert parse_config(mark + "[data]\r\ntext = 'caf\u00e9'\r\n".encode()).data.text == "caf\u00e9"


def test_settings_that_cannot_be_read_are_refused_in_words(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s3t.toml")
    with pytest.raises(
        UsageError, match=r"expected s3t.toml to be a file that can be read, got not a regular file"
    ):
        Workspace(tmp_path)


IGNORED = {
    "Latin-1": b"caf\xe9\n",
    "no end": b"caf\xe9",
    "UTF-16": "a\n".encode("utf-16"),
    "empty": b"",
    "carriage returns": b"a\r\n.s3t/\r\n",
}


@pytest.mark.parametrize("content", IGNORED.values(), ids=IGNORED)
def test_what_git_ignores_stays_byte_for_byte_and_git_ignores_ours_as_well(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / ".gitignore").write_bytes(content)
    create_workspace(tmp_path, Config(), b"\1" * 32)
    assert (tmp_path / ".gitignore").read_bytes().startswith(content)
    for name in (".s3t/keys/signing.key", "data/x"):
        subprocess.run(["git", "-C", str(tmp_path), "check-ignore", "-q", name], check=True)


JOURNALS: dict[str, bytes] = {
    "garbage": b"\xff{",
    "empty": b"",
    "object": b"{}",
    "list": b"[]",
    "deep": DEEP.encode(),
    "null": b"null",
    "numbers": b'{"move": 1, "old": 2, "new": 3}',
    "no TOML": b'{"move": "a", "old": "[", "new": ""}',
}


@pytest.mark.parametrize("content", JOURNALS.values(), ids=JOURNALS)
def test_a_damaged_note_of_a_move_is_told_in_words(tmp_path: Path, content: bytes) -> None:
    place = create_workspace(tmp_path, Config(), b"\1" * 32)
    place.migration_path.write_bytes(content)
    asks: list[Callable[[], object]] = [
        lambda: migrating.undo(tmp_path, print),
        lambda: migrating.migrate(tmp_path, "", "", print),
    ]
    for ask in asks:
        with pytest.raises(
            WorkspaceError, match=r"expected .s3t/migration.json as `s3t migrate` wrote it"
        ):
            ask()
    text = render_config(place.config)
    said = {"move": "a", "old": text, "new": text, "claimed": False, "emptied": ""}
    place.migration_path.write_text(json.dumps(said))
    assert migrating._journal(place, print) == migrating._Journal(
        place.migration_path, "a", place.config, place.config
    )
    for wrong in ({"claimed": "yes"}, {"claimed": []}, {"emptied": "both"}, {"emptied": {}}):
        place.migration_path.write_text(json.dumps(said | wrong))
        with pytest.raises(
            WorkspaceError, match=r"expected .s3t/migration.json as `s3t migrate` wrote it"
        ):
            migrating._journal(place, print)


_HOLDS = (
    "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), 2); "
    "print(flush=True); time.sleep(99)"
)


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Starts a process that holds the server's lock, under a name."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str) -> "subprocess.Popen[bytes]":
        lock = str(tmp_path / prefect_server.SERVER_LOCK)
        started.append(
            subprocess.Popen([sys.executable, "-c", _HOLDS, lock, name], stdout=subprocess.PIPE)
        )
        assert started[0].stdout is not None
        started[0].stdout.readline()
        return started[0]

    yield start
    for process in started:
        process.kill()
        process.wait()


def _said(**other: Any) -> bytes:
    return json.dumps(
        {
            "url": "http://127.0.0.1:1/api",
            "pid": 1,
            "machine": prefect_server.this_machine(),
            "certificate": "",
            **other,
        }
    ).encode()


ADDRESSES = {
    "none": None,
    "url": b'{"url": 5}',
    "cut": b"[[[",
    "deep": DEEP.encode(),
    "types": _said(url=5),
    "another pid": _said(),
    "pid 0": _said(pid=0),
    "pid -1": _said(pid=-1),
    "huge": _said(pid=2**70),
    "text pid": _said(pid="1"),
    "true": _said(pid=True),
    "no machine": _said(machine=None),
}


@pytest.mark.parametrize("content", ADDRESSES.values(), ids=ADDRESSES)
def test_a_server_with_a_damaged_address_is_ended_all_the_same_and_soon(
    tmp_path: Path,
    content: bytes | None,
    holding: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_prefect, "_TELLING_SECONDS", 0.3)
    process = holding(prefect_server.__name__)
    if content is not None:
        (tmp_path / prefect_server.ADDRESS).write_bytes(content)
    began = time.monotonic()
    assert SharedServer(tmp_path, 1).stop() and time.monotonic() - began < 10
    assert process.wait(5) and not (tmp_path / prefect_server.ADDRESS).exists()
    assert not SharedServer(tmp_path, 1).stop()


@pytest.mark.parametrize("content", [None, b"[[[", _said()])
def test_a_process_that_is_no_server_of_ours_is_named_and_not_ended(
    tmp_path: Path,
    content: bytes | None,
    holding: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_prefect, "_TELLING_SECONDS", 0.3)
    process = holding("somebody else's")
    if content is not None:
        (tmp_path / prefect_server.ADDRESS).write_bytes(content)
    with pytest.raises(OrchestrationError, match=str(process.pid)):
        SharedServer(tmp_path, 1).stop()
    assert process.poll() is None


def test_a_damaged_address_counts_as_none_for_a_command(
    tmp_path: Path, holding: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_prefect, "_PATIENCE_SECONDS", 0.3)
    holding(prefect_server.__name__)
    (tmp_path / prefect_server.ADDRESS).write_text(DEEP)
    with pytest.raises(Busy, match="run `s3t stop`"):
        SharedServer(tmp_path, 1).attach()


def test_a_path_that_is_not_utf8_is_refused_in_words_before_prefect_is_told_and_can_be_printed(
    tmp_path: Path,
) -> None:
    for where in (["n\udcff.csv", False], [["a.csv", "n\udcff.csv"], False]):
        with pytest.raises(UsageError, match=r"whose name is UTF-8, got n\\udcff.csv; rename it"):
            run_flow(SimpleNamespace(root=tmp_path), "ingest", *where)
    with pytest.raises(UsageError, match="whose name is UTF-8"):
        run_flow(SimpleNamespace(root=tmp_path / "\udcff"), "erase")
    code = (
        "import sys; from flows import cli; sys.argv[1:] = ['--version']\ntry: "
        "cli.main()\nfinally: print('\\udcff')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert done.stdout.splitlines()[1:] == ["\\udcff"] and done.returncode == 0


@pytest.mark.parametrize("kind", ["a pipe", "a directory", "a link to nowhere", "a link to a pipe"])
@pytest.mark.parametrize(
    "name",
    [
        "workspace.lock",
        "accepting.lock",
        "needles.lock",
        "checkpoint.lock",
        "train.lock",
        "prefect/users.lock",
        "prefect/server.log",
        "prefect/starting.lock",
    ],
)
def test_what_lies_in_the_place_of_a_lock_or_a_log_is_refused_in_words_and_not_waited_for(
    tmp_path: Path, name: str, kind: str
) -> None:
    path = tmp_path / ".s3t" / name
    path.parent.mkdir(parents=True)
    if kind == "a directory":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "elsewhere" / "x")
        if kind == "a link to a pipe":
            (tmp_path / "elsewhere").mkdir()
            os.mkfifo(tmp_path / "elsewhere" / "x")
    uses: dict[str, Callable[[], Any]] = {
        "prefect": lambda: SharedServer(path.parent, 1)._open(path.name),
        "prefect/server.log": SharedServer(path.parent, 1)._log,
        ".s3t": lambda: locked(path, 1),
    }
    with (
        fails_after(30),
        pytest.raises(WorkspaceError, match=rf"expected .*{path.name} to be a file of its own"),
        uses.get(name, uses[path.parent.name])(),
    ):
        pass


def test_a_lock_that_is_held_is_waited_for_no_longer_than_was_said(tmp_path: Path) -> None:
    with locked(tmp_path / "a.lock"):
        with pytest.raises(TimeoutError), locked(tmp_path / "a.lock", 0.1):
            pass
        with pytest.raises(Busy), workspace_lock(tmp_path / "a.lock", 0.1):
            pass
    with locked(tmp_path / "a.lock", 0.1):
        assert (tmp_path / "a.lock").stat().st_mode & 0o777 == 0o600
