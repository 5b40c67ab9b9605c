"""Hostile input: files that are too large, too deep, of random bytes; stages passed off as others;
many strange ids."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.adapters.checkpoints import CheckpointFiles
from flows.adapters.credentials import read_secret
from flows.adapters.doors import Door
from flows.adapters.keys import read_workspace_key
from flows.use_cases.id_files import read_ids
from flows.use_cases.taking import take_requests
from flows.use_cases.verifying import verify_path
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from s3t_core.erasure.bundle import standalone_verifier
from s3t_core.errors import ArtifactError, S3TError, UsageError
from s3t_core.learning.store import LocalStageStore
from s3t_core.records import Row, row_commitment

KEY = b"k" * 32
MANY = int(os.environ.get("S3T_TEST_IDS", "5000"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("hostile") / "w"
    create_workspace(root, Config())
    return Workspace(root)


def _public(place: Workspace) -> Path:
    return place.keys_dir / "signing.pub"


@pytest.mark.parametrize("name", ["certificate.json", "ledger.jsonl", "bundle.zip"])
def test_a_file_of_many_gigabytes_is_refused_and_not_read(
    place: Workspace, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(5 * 2**30)  # sparse
    found = verify_path(path, _public(place))
    assert not found["valid"] and found["problems"]


@pytest.mark.parametrize(
    "nested",
    [
        b"[" * 5_000_000,
        b'{"payload":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"payload":"W1tbW1tb","signatures":[' + b"[" * 100_000,
    ],
)
def test_deeply_nested_json_is_refused(place: Workspace, tmp_path: Path, nested: bytes) -> None:
    for name in ("certificate.json", "ledger.jsonl"):
        (tmp_path / name).write_bytes(nested)
        assert not verify_path(tmp_path / name, _public(place))["valid"]
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("proofs.json", nested)
        archive.writestr("checkpoint.json", nested)
    assert not verify_path(tmp_path / "b.zip", _public(place))["valid"]


@pytest.mark.parametrize("kind", ["directory", "link", "pipe"])
def test_what_is_no_file_is_told_as_no_evidence(
    place: Workspace, tmp_path: Path, kind: str
) -> None:
    for ending in (".json", ".zip"):
        path = tmp_path / f"a{ending}"
        if kind == "directory":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(tmp_path / "nowhere")
        else:
            os.mkfifo(path)
    found = verify_path(tmp_path, _public(place))
    assert not found["valid"] and found["problems"][0].startswith("a.json: expected evidence")
    if kind != "link":
        assert not verify_path(tmp_path / "a.zip", _public(place))["valid"]


@pytest.mark.parametrize("kind", ["pipe", "directory", "socket", "device"])
@pytest.mark.parametrize(
    "what",
    [
        "key",
        "checkpoint",
        "ids",
        "credential",
        "private key",
        "certificate of TLS",
        "key of verify.py",
        "checkpoint of verify.py",
    ],
)
def test_what_is_no_file_is_not_waited_for(
    place: Workspace, tmp_path: Path, what: str, kind: str
) -> None:
    """A pipe that nobody writes to would be waited for; /dev/zero has no end. Nothing is made worse
    by a sentence."""
    path = tmp_path / "given"
    bound = socket.socket(socket.AF_UNIX)
    if kind == "socket":
        here = Path.cwd()
        os.chdir(tmp_path)  # its path may be 107 bytes long
        bound.bind("given")
        os.chdir(here)
    {
        "pipe": lambda: os.mkfifo(path, 0o600),
        "directory": path.mkdir,
        "socket": lambda: None,
        "device": lambda: path.symlink_to("/dev/zero"),
    }[kind]()
    certificate = next(place.certificates_dir.glob("*.json"), place.keys_dir / "signing.pub")
    (tmp_path / "verify.py").write_bytes(standalone_verifier())
    python = [sys.executable, str(tmp_path / "verify.py"), "--key"]
    acts: dict[str, Callable[[], object]] = {
        "key": lambda: verify_path(certificate, path),
        "checkpoint": lambda: CheckpointFiles(path, None, list, place.heads.memory).check(
            "x", dict, list
        ),
        "ids": lambda: read_ids(str(path)),
        "credential": lambda: read_secret(path),
        "private key": lambda: read_workspace_key(_named(path, tmp_path, "workspace.key")),
        "certificate of TLS": lambda: Door("127.0.0.1", 0, str(path), str(path)).certified,
        "key of verify.py": lambda: _standalone([*python, str(path)]),
        "checkpoint of verify.py": lambda: _standalone(
            [*python, str(place.keys_dir / "signing.pub"), "--checkpoint", str(path)]
        ),
    }
    with pytest.raises(S3TError, match="expected") as refused:
        acts[what]()
    if what == "ids":  # nothing of it was read
        assert "not a regular file" in str(refused.value) or kind == "socket"
    bound.close()


def _named(path: Path, folder: Path, name: str) -> Path:
    path.rename(folder / name)
    return folder


def _standalone(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in done.stderr and done.returncode == 2
    raise UsageError(done.stderr.strip().splitlines()[-1])


def test_ids_from_a_pipe_that_was_handed_over_are_read() -> None:
    """`--file <(...)` of a shell, `--file /dev/stdin`: the process has them open already."""
    reads = "from flows.use_cases.id_files import read_ids; print(read_ids(sys.argv[1]).ids)"
    code = f"import sys; {reads}"
    for command in (
        f"{sys.executable} -c '{code}' <(printf 'a-1\\nb-2\\n')",
        f"printf 'a-1\\nb-2\\n' | {sys.executable} -c '{code}' /dev/stdin",
        f"printf 'a-1\\nb-2\\n' | {sys.executable} -c '{code}' -",
    ):
        done = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert done.stdout == "['a-1', 'b-2']\n", done.stderr[-500:]


def test_a_bundle_whose_compressed_bytes_are_damaged_is_not_valid(
    place: Workspace, tmp_path: Path
) -> None:
    path = tmp_path / "b.zip"
    for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", kind) as archive:
            archive.writestr("proofs.json", json.dumps(list(range(2000))))
        whole = path.read_bytes()
        for at in range(30, len(whole), 97):
            path.write_bytes(
                whole[:at] + bytes(b ^ 0xFF for b in whole[at : at + 8]) + whole[at + 8 :]
            )
            assert not verify_path(path, _public(place))["valid"]


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=300), st.sampled_from([".json", ".jsonl", ".zip"]))
def test_random_bytes_are_told_as_not_valid(
    place: Workspace, tmp_path: Path, data: bytes, ending: str
) -> None:
    path = tmp_path / f"x{ending}"
    path.write_bytes(data)
    assert not verify_path(path, _public(place))["valid"]


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
def test_a_checkpoint_with_anything_written_into_it_is_not_valid(
    place: Workspace, tmp_path: Path, at: int, data: bytes
) -> None:
    place.signing.write_checkpoint()
    whole = (place.state_dir / "checkpoint.json").read_bytes()
    at %= len(whole)
    forged = whole[:at] + data + whole[at + len(data) :]
    (tmp_path / "c.json").write_bytes(forged)
    assert verify_path(tmp_path / "c.json", _public(place))["valid"] == (forged == whole)


IDS = st.text(min_size=1, max_size=40).filter(
    lambda t: (
        t.strip()
        and "\n" not in t
        and not t.endswith("\r")
        and not (len(t) > 1 and t[0] == t[-1] == '"')
    )
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(IDS, min_size=1, max_size=5, unique=True))
def test_whatever_an_id_is_it_is_one_request_and_stands_in_one_file_only(
    place: Workspace, tmp_path: Path, ids: list[str]
) -> None:
    try:
        given_ids = [i.encode() and i for i in ids]
    except UnicodeEncodeError:
        return  # no file in UTF-8 could hold it
    if not any("\r" in i for i in given_ids):  # without quotes it may be the end of an old line
        (tmp_path / "ids.txt").write_bytes("\r\n\n".join(given_ids).encode())
        assert read_ids(str(tmp_path / "ids.txt")).ids == given_ids
    (tmp_path / "ids.txt").write_bytes(
        "\r\n\n".join('"' + i.replace('"', '""') + '"' for i in given_ids).encode()
    )
    assert read_ids(str(tmp_path / "ids.txt")).ids == given_ids
    taken = take_requests(place, given_ids)
    assert len({t.request_id for t in taken}) == len(given_ids)
    for request, as_given in zip(taken, given_ids, strict=True):
        assert place.needles.ids_of(request.request_id) == [as_given]
    assert {p.parent for p in place.state_dir.rglob("req-*")} == {place.needles.folder}


@given(st.binary(max_size=60))
def test_a_file_of_ids_is_read_or_refused(data: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            ids = read_ids(file.name).ids
        except UsageError:
            return
        assert all(i.strip() for i in ids)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_very_many_ids_with_duplicates_and_blanks(tmp_path: Path) -> None:
    """100,000 of them in `make test-large`."""
    create_workspace(tmp_path / "w", Config())
    place = Workspace(tmp_path / "w")
    lines = [f"person {n % MANY}" + ("\r" if n % 2 else "") for n in range(MANY * 6 // 5)]
    (tmp_path / "ids.txt").write_text("\n \n".join(lines), newline="")
    taken = take_requests(place, read_ids(str(tmp_path / "ids.txt")).ids)
    assert len(taken) == len({t.request_id for t in taken}) == MANY
    assert len(place.requests.open_now()) == MANY
    shutil.rmtree(tmp_path / "w")


def test_a_stage_swapped_for_another_valid_one_is_refused(tmp_path: Path) -> None:
    store = LocalStageStore(tmp_path, KEY)
    one, two = store.put("key one", b"weights one"), store.put("key two", b"weights two")
    (tmp_path / f"{one}.safetensors").write_bytes(b"weights two")
    with pytest.raises(ArtifactError, match="expected stage artifact"):
        store.get(one)
    assert store.bindings() == {"key two": two}


def test_a_stage_has_a_second_name_where_a_version_needs_it_and_a_copy_in_another_file_system(
    tmp_path: Path,
) -> None:
    store = LocalStageStore(tmp_path / "store", KEY)
    one = store.put("key one", b"weights one")
    (tmp_path / "version").mkdir()
    placed = tmp_path / "version" / f"{one}.safetensors"
    store.place(one, placed.parent)
    assert placed.samefile(tmp_path / "store" / placed.name)
    placed.unlink()
    placed.write_bytes(b"weights two")  # damaged
    store.place(one, placed.parent)
    assert placed.read_bytes() == b"weights one"
    memory = Path("/dev/shm")  # noqa: S108  # another file system, where there is one
    if memory.is_dir() and memory.stat().st_dev != tmp_path.stat().st_dev:
        with tempfile.TemporaryDirectory(dir=memory) as other:
            store.place(one, Path(other))
            assert (Path(other) / placed.name).read_bytes() == b"weights one"
    (tmp_path / "store" / placed.name).write_bytes(b"weights two")
    with pytest.raises(ArtifactError, match="expected stage artifact"):
        store.place(one, placed.parent)


def test_a_valid_stage_cannot_be_passed_off_as_another_without_the_key(tmp_path: Path) -> None:
    store = LocalStageStore(tmp_path, KEY)
    one = store.put("key one", b"weights one")
    sidecar = tmp_path / f"{one}.json"
    told = json.loads(sidecar.read_text())
    for forged in (
        told | {"key": "key two"},
        {"digest": one, "key": "key two"},
        told | {"seal": ""},
        told | {"seal": 5},
        [told],
    ):
        sidecar.write_text(json.dumps(forged))
        assert store.bindings() == {}
    LocalStageStore(tmp_path, b"another key").put("key two", b"weights one")
    assert store.bindings() == {}


def test_a_row_commitment_opens_with_the_key_and_the_very_row_only(place: Workspace) -> None:
    row = Row("r", "s", "a text", "a")
    committed = row_commitment(place.keys, "req-1", row)
    assert committed == row_commitment(place.keys, "req-1", Row("r", "s", "a text", "a"))
    moved = Row("r", "s", "a tex", "ta")
    others = {row_commitment(place.keys, "req-2", row), row_commitment(place.keys, "req-1", moved)}
    assert committed not in others and len(others) == 2
