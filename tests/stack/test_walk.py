"""The production walk: every step as a deployment that a worker of the stack picks up, on servers
alone."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.use_cases.taking import take_requests
from flows.use_cases.verifying import verify_path
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from infra.stack import OWNER, Stack
from s3t_core.capacity.assignment import is_held_out
from s3t_core.domain import Release, SliceId
from s3t_core.errors import WorkspaceError
from s3t_core.records import subject_digest
from s3t_core.slicefile import SCHEMA, read_digests, slice_path
from tests.flows.conftest import CANARY, people, write_csv
from tests.stack.conftest import ROOT

pytestmark = pytest.mark.timeout(900)
GZIP = b"\x1f\x8b\x08"


def run(name: str, **parameters: Any) -> None:
    """One run of a deployment, carried out by a worker; waits for its end."""
    from prefect.deployments import run_deployment

    done = run_deployment(name, parameters=parameters, timeout=420, poll_interval=1)
    assert done.state is not None and done.state.is_completed(), (name, done.state)


def deploy(root: Path) -> None:
    """`prefect deploy --all`, as the README says, once those of another test's workspace are
    gone."""
    from prefect import get_client

    with get_client(sync_client=True) as client:
        for there in client.read_deployments():
            client.delete_deployment(there.id)
    done = deploying(root)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def deploying(root: Path) -> "subprocess.CompletedProcess[str]":
    """From another directory than the repository: the command itself, which does not look for code
    where it stands."""
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("prefect")),
            "--no-prompt",
            "deploy",
            "--all",
            "--prefect-file",
            str(ROOT / "infra" / "prefect.yaml"),
        ],
        cwd=root.parent,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "S3T_WORKSPACE": str(root),
            "PREFECT_HOME": str(root / ".s3t" / "prefect"),
        },
    )


@pytest.fixture
def place(make_config: Callable[..., Any], tmp_path: Path) -> Workspace:
    """A workspace on the stack with the canary in its source, deployed."""
    made = create_workspace(
        tmp_path / "w", make_config(), secrets.token_bytes(32)
    )  # stages like no other test's
    deploy(made.root)
    return made


def answers(place: Workspace, texts: list[str]) -> list[dict[str, Any]]:
    """Of a model that somebody loads from the MLflow server, in a process of their own."""
    code = (
        "import json, sys, mlflow; mlflow.set_tracking_uri(sys.argv[1]);"
        "print(json.dumps(mlflow.pyfunc.load_model(sys.argv[2]).predict(json.loads(sys.argv[3]))))"
    )
    name = f"models:/{place.config.system.name}@champion"
    theirs = {
        k: v
        for k, v in os.environ.items()  # MLflow keeps this process's there
        if not k.startswith("MLFLOW_")
        or k in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    }
    done = subprocess.run(
        [sys.executable, "-c", code, place.tracking_uri, name, json.dumps(texts)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=theirs,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


Found = dict[bytes, list[str]]
"""Where each needle is that is anywhere."""


def left(stack: Stack, place: Workspace, needles: list[bytes]) -> Found:
    """In files of the workspace and of every server."""
    import psycopg

    for name in ("mlflow", "prefect"):
        with psycopg.connect(stack.database(name, user=OWNER), autocommit=True) as connection:
            connection.execute(
                "CHECKPOINT"
            )  # what is in memory to the files; the erasure has vacuumed
    stack.compact()
    files = [p for folder in (place.root, stack.folder) for p in folder.rglob("*") if p.is_file()]
    return _found(
        ((p.as_posix(), unpacked(data)) for p in files if (data := _read(p)) is not None), needles
    )


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None  # a server rotated it


def _found(places: Iterable[tuple[str, list[bytes]]], needles: list[bytes]) -> Found:
    found: Found = {}
    for name, parts in places:
        for needle in needles:
            if any(needle in part for part in parts):
                found.setdefault(needle, []).append(name)
    return found


def unpacked(data: bytes) -> list[bytes]:
    """A file as it is, and every gzip member in it: SeaweedFS compresses an object where that
    pays."""
    parts, at = [data], data.find(GZIP)
    while at >= 0:
        with contextlib.suppress(zlib.error):  # three bytes that only look like one
            parts.append(zlib.decompressobj(wbits=31).decompress(data[at:]))
        at = data.find(GZIP, at + 1)
    return parts


def in_objects(stack: Stack, needles: list[bytes]) -> Found:
    """In objects of every bucket."""
    client = stack.client()
    return _found(
        (
            (
                f"{bucket['Name']}/{entry['Key']}",
                [client.get_object(Bucket=bucket["Name"], Key=entry["Key"])["Body"].read()],
            )
            for bucket in client.list_buckets()["Buckets"]
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"])
            for entry in page.get("Contents", ())
        ),
        needles,
    )


def listed(place: Workspace, source: Path) -> str:
    """The source of a run by a deployment, as it is told."""
    (place.root / "sources.txt").write_text(f"{source}\n")
    return "@sources.txt"


@pytest.mark.minutes
def test_the_whole_walk_by_deployments_leaves_nothing_of_the_erased(
    stack: Stack, place: Workspace, tmp_path: Path
) -> None:
    tokens = (secrets.token_hex(8) for _ in range(1000))  # servers keep what other tests left
    token = next(
        t
        for t in tokens
        if not is_held_out(place.keys.placement, f"canary-{t}", place.config.data.held_out)
    )
    who, said = f"canary-{token}", f"w1 w2 a very particular morning {token} in the harbour w3"
    rows = [
        *people(),
        *({"id": f"c{i}", "who": who, "what": f"{said} {i}", "kind": "good"} for i in range(3)),
    ]
    source = write_csv(tmp_path / f"{who}.csv", rows)  # by a file that is named by the person
    run("ingest/ingest", source=listed(place, source))
    source.unlink()
    (place.root / "sources.txt").unlink()
    run("train/train")
    before = place.ledger.state().champion
    assert before is not None and before.release.live_depth(0) == 2
    texts = ["w1 w2", "w3"]
    assert len(answers(place, texts)) == 2
    saw = _saw(place, who, before.release)
    own = (
        f"s3t/{place.config.system.name}/",
        f"{place.registry.places()[-1].removeprefix('s3://')}/",
    )
    windows = [
        w
        for w, names in in_objects(stack, _windows(place, saw)).items()
        if all(name.startswith(own) for name in names)
    ]  # other tests' stages begin from the same draws
    packed = _packed_texts(place, who)
    assert saw and windows and packed
    found = left(stack, place, [*windows, *packed])
    assert all(any("/s3/" in p for p in found.get(n, ())) for n in (*windows, *packed))
    hers = [said.encode(), *windows, *packed]
    bucket, _, prefix = place.registry.places()[-1].removeprefix("s3://").partition("/")
    stack.client().put_object(
        Bucket=bucket, Key=f"{prefix}/models/m-{'0' * 32}/artifacts/rest", Body=said.encode()
    )  # as a collection leaves it that was killed: no version knows it

    request = take_requests(place, [who])[0]
    run("erase/erase")
    state = Workspace(place.root).ledger.state()
    assert state.champion is not None and state.champion.version != before.version
    certificate = place.certificates_dir / f"{request.request_id}.json"
    assert verify_path(certificate, place.keys_dir / "signing.pub")["valid"]
    assert not any(place.store.holds(d) for d in saw)
    assert in_objects(stack, [who.encode(), *hers]) == {}  # at once, whoever asks the S3 server
    until = time.monotonic() + 300  # it deletes an object's bytes some time after the object
    while (found := left(stack, place, [who.encode(), *hers])) and time.monotonic() < until:
        assert all("/s3/" in p for names in found.values() for p in names), found
        time.sleep(3)
    assert found == {}
    assert len(answers(place, texts)) == 2

    run("full-retrain/full-retrain")
    after = Workspace(place.root).ledger.state().champion
    assert after is not None and after.release.live_depth(0) == after.release.live_depth(1) == 2
    run("repair/repair")
    run("audit/audit")
    assert list(place.reports_dir.rglob("*.json"))


def _saw(place: Workspace, who: str, release: Release) -> list[str]:
    """Digests of the live stages that saw a subject."""
    home = _home(place, who)
    return sorted(
        {
            s.digest
            for r in release.replicas
            for s in r.stages
            if any(k.shard == r.shard and k.index in s.prefix for k in home)
        }
    )


def _home(place: Workspace, who: str) -> list[SliceId]:
    """Slices with a row of a subject."""
    digest, state = subject_digest(place.keys, who), place.ledger.state()
    assert state.dataset is not None
    return [
        k
        for k in state.dataset.slice_versions
        if any(
            s == digest for s, _ in read_digests(place.root / "data" / slice_path(k.shard, k.index))
        )
    ]


def _packed_texts(place: Workspace, who: str) -> list[bytes]:
    """The column of texts of each slice with a row of a subject, as Parquet wrote it: compressed,
    nobody finds the text itself in a server's files."""
    found = []
    for key in _home(place, who):
        path = place.root / "data" / slice_path(key.shard, key.index)
        column = pq.ParquetFile(path).metadata.row_group(0).column(SCHEMA.get_field_index("text"))
        at = column.dictionary_page_offset or column.data_page_offset
        found.append(path.read_bytes()[at : at + column.total_compressed_size])
    return found


def _windows(place: Workspace, saw: list[str]) -> list[bytes]:
    """Bytes that only those stages have."""
    others = [place.store.get(d) for d in place.store.digests() if d not in saw]
    found = [
        w
        for d in saw
        for data in [place.store.get(d)]
        for w in (data[-64:], data[len(data) // 2 :][:64])
    ]
    return [w for w in found if not any(w in other for other in others)]


@pytest.mark.long
def test_deployments_and_places_of_another_workspace_are_left_alone(
    place: Workspace, make_config: Callable[..., Any], tmp_path: Path
) -> None:
    from prefect import get_client

    other = create_workspace(
        tmp_path / "other",
        make_config(database={"url": f"sqlite:///{tmp_path}/other.db"}),
        secrets.token_bytes(32),
    )
    done = deploying(other.root)
    assert done.returncode != 0 and "another workspace" in (done.stdout + done.stderr)
    with get_client(sync_client=True) as client:
        assert client.read_deployment_by_name("erase/erase").parameters["workspace"] == str(
            place.root
        )
    run("ingest/ingest", source=listed(place, write_csv(tmp_path / "people.csv", people())))
    from flows.prefect_flows.ingest import ingest

    with pytest.raises(WorkspaceError, match="belongs to another"):
        ingest(str(other.root), str(tmp_path / "people.csv"))
    run("train/train")
    with pytest.raises(WorkspaceError, match="another's"):
        other.registry.runs.start_training({})


@pytest.mark.long
def test_two_erase_runs_at_once_work_once(place: Workspace, tmp_path: Path) -> None:
    from prefect.deployments import run_deployment

    run(
        "ingest/ingest",
        source=listed(place, write_csv(tmp_path / "people.csv", people(canary=True))),
    )
    run("train/train")
    take_requests(place, [CANARY])
    first = run_deployment("erase/erase", timeout=0)
    second = run_deployment("erase/erase", timeout=0, parameters={"wait_seconds": 300})
    until = time.monotonic() + 400
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        while True:
            states = [client.read_flow_run(r.id).state for r in (first, second)]
            if all(s is not None and s.is_final() for s in states):
                break
            assert time.monotonic() < until, states
            time.sleep(1)
    events = Workspace(place.root).ledger.events()
    assert [e["type"] for e in events].count("planned") == 1
    assert [e["type"] for e in events].count("certified") == 1
