"""Stages trained on a Dask cluster of separate processes: the same bytes, and a killed worker costs
one stage."""

import contextlib
import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from flows.adapters.away import AwayFiles
from flows.adapters.dask_certificates import AUTHORITY, CLIENT, CLUSTER, make_certificates
from flows.adapters.dask_runner import DaskRunner, Needs
from flows.adapters.s3 import S3Blobs
from flows.prefect_flows.erase import erase
from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.train import train
from flows.use_cases.taking import take_requests
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from infra.cluster import Cluster, cluster, with_children
from infra.stack import Stack
from s3t_core.errors import GuaranteeError, ResidueFound, TrainingError, WorkspaceError
from s3t_core.learning.jobs import FileRef, StageJob
from s3t_core.slicefile import HELD_OUT_PATH, slice_path
from tests.flows.conftest import CANARY, CANARY_TEXT, people, write_csv
from tests.stack.conftest import KEY

pytestmark = pytest.mark.timeout(600)


@contextmanager
def running(folder: Path, *given: Any) -> Iterator[Cluster]:
    """A cluster, and this process with its client's certificate, as DASK_CONFIG has it."""
    import dask.config

    with cluster(folder, *given) as made, dask.config.set(of_client(made.known_by)):
        yield made


def of_client(certificates: Path) -> dict[str, Any]:
    """Dask's configuration of a client, a setting each."""
    import dask.config
    import distributed  # noqa: F401  # whose defaults it replaces

    read = dask.config.collect(paths=[str(certificates / CLIENT)], env={})["distributed"]["comm"]
    return {
        "distributed.comm.require-encryption": read["require-encryption"],
        "distributed.comm.tls.ca-file": read["tls"]["ca-file"],
        "distributed.comm.tls.client.cert": read["tls"]["client"]["cert"],
        "distributed.comm.tls.client.key": read["tls"]["client"]["key"],
    }


@pytest.fixture
def ingested(make_config: Callable[..., Any], tmp_path: Path) -> Callable[..., Workspace]:
    def make(address: str, name: str = "w") -> Workspace:
        config = make_config(runner={"kind": "dask", "address": address})
        place = create_workspace(tmp_path / name, config, KEY)
        ingest(str(place.root), str(write_csv(tmp_path / "people.csv", people(canary=True))))
        return Workspace(place.root)

    return make


@pytest.fixture
def local(make_place: Callable[..., Workspace], tmp_path: Path) -> Callable[[], dict[str, str]]:
    """Key to digest of the same data's stages, trained by processes of this machine."""

    def trained() -> dict[str, str]:
        place = make_place()
        ingest(str(place.root), str(write_csv(tmp_path / "people.csv", people(canary=True))))
        train(str(place.root))
        return place.store.bindings()

    return trained


@pytest.mark.minutes
def test_a_cluster_trains_the_same_bytes_and_keeps_nothing(
    stack: Stack,
    ingested: Callable[..., Workspace],
    local: Callable[[], dict[str, str]],
    tmp_path: Path,
) -> None:
    with running(tmp_path / "dask") as dask:
        place = ingested(dask.address)
        assert train(str(place.root))["trained"] == 8
        assert place.store.bindings() == local()
        homes = [
            p for p in (tmp_path / "dask").rglob("*") if p.is_file() and p.suffix == ".parquet"
        ]
        assert homes == []


@pytest.mark.long
def test_a_killed_worker_costs_its_stage_only(
    stack: Stack,
    ingested: Callable[..., Workspace],
    local: Callable[[], dict[str, str]],
    tmp_path: Path,
) -> None:
    with running(tmp_path / "dask") as dask:
        place = ingested(dask.address)
        done: dict[str, Any] = {}
        training = threading.Thread(target=lambda: done.update(train(str(place.root))))
        training.start()
        until = time.monotonic() + 200
        while not place.ledger.state().stages:
            assert training.is_alive() and time.monotonic() < until
            time.sleep(0.1)
        with_children(dask.workers[0].pid)
        training.join(300)
        assert done["trained"] == 8 and place.store.bindings() == local()


@pytest.mark.long
def test_what_a_killed_worker_fetched_is_removed_by_the_next_on_that_machine(
    stack: Stack, ingested: Callable[..., Workspace], tmp_path: Path
) -> None:
    with running(tmp_path / "dask", 1) as dask:
        place = ingested(dask.address)
        home = tmp_path / "dask" / "w0"
        dead = dask.workers[0].pid
        began = int(psutil.Process(dead).create_time())
        with_children(dead)
        left = home / f"s3t-stage-{dead}-{began}-abc"
        another = (
            home / f"s3t-stage-{os.getpid()}-{int(psutil.Process().create_time())}-abc"
        )  # of one that lives
        for folder in (left, another):
            folder.mkdir()
            (folder / "0.parquet").write_bytes(b"rows")
        dask.add(home="w0")
        train(str(place.root))
        assert not left.exists() and another.exists()


def test_nothing_is_certified_while_a_killed_workers_machine_is_away(
    stack: Stack, ingested: Callable[..., Workspace], tmp_path: Path
) -> None:
    with running(tmp_path / "dask", 1) as dask:
        place, home = ingested(dask.address), tmp_path / "dask" / "w0"
        job, outcomes = _stage_job(place, *_slice_of_the_canary(place)), []
        training = threading.Thread(target=lambda: outcomes.append(place.runner.train(job)))
        training.start()
        _stop_with(len(job.slices) + 1, home, dask.workers[0].pid)
        dask.add()
        wait_for_workers(dask, 2)
        with_children(dask.workers[0].pid)
        training.join(300)
        assert outcomes[0].artifact and list(home.glob("s3t-stage-*/*.parquet"))
        take_requests(place, [CANARY])
        with pytest.raises(ResidueFound, match=r"127\.0\.0\.1.*same TMPDIR"):
            erase(str(place.root))
        assert list(home.glob("s3t-stage-*/*.parquet")) and not list(
            place.certificates_dir.glob("*")
        )
        dask.add(home="w0")
        wait_for_workers(dask, 2)
        assert [c["outcome"] for c in erase(str(place.root))["certificates"]] == [
            "not trained on yet"
        ]
        assert not list(home.glob("s3t-stage-*"))


def _slice_of_the_canary(place: Workspace) -> tuple[int, int]:
    """A shard and slice, so that a job on it has a row of the canary's; any, where that is held
    out."""
    import pyarrow.parquet as pq

    return next(
        (
            (shard, index)
            for shard in range(2)
            for index in range(2)
            if CANARY_TEXT
            in pq.read_table(place.root / "data" / slice_path(shard, index))["text"].to_pylist()
        ),
        (0, 0),
    )


def _stop_with(files: int, home: Path, pid: int) -> None:
    """Stop the worker while it has so many files in its directory."""
    until = time.monotonic() + 120
    while len(list(home.glob("s3t-stage-*/*.parquet"))) < files:
        assert time.monotonic() < until
        time.sleep(0.005)
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        process.suspend()
    assert len(list(home.glob("s3t-stage-*/*.parquet"))) == files


def wait_for_workers(dask: Cluster, count: int) -> None:
    from distributed import Client

    with Client(dask.address, timeout=30, set_as_default=False) as ours:
        ours.wait_for_workers(count, timeout=60)


def test_a_worker_begins_no_job_before_its_place_is_on_the_lease(
    stack: Stack,
    ingested: Callable[..., Workspace],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flows.adapters.dask_runner import DaskRunner

    with running(tmp_path / "dask", 1) as dask:
        place = ingested(dask.address)
        job = _stage_job(place)
        known, kept = DaskRunner._places, place.away.widen
        joined: list[Any] = []
        monkeypatch.setattr(
            DaskRunner, "_places", lambda self, client: known(self, client) if joined else {}
        )

        def widen(lease: Any, places: Any) -> Any:
            assert not lease.places and not list((tmp_path / "dask").rglob("s3t-stage-*"))
            joined.append(kept(lease, places))
            return joined[-1]

        monkeypatch.setattr(place.away, "widen", widen)
        assert place.runner.train(job).artifact
        assert [set(lease.places.values()) for lease in joined] == [{"127.0.0.1"}]
        assert place.away.beyond(()) == []


def test_a_worker_has_no_key_of_a_bucket_and_spills_nothing(
    stack: Stack, ingested: Callable[..., Workspace], tmp_path: Path
) -> None:
    import requests
    from distributed import Client

    from flows.adapters.dask_runner import Task

    def spilling(
        dask_worker: Any,
    ) -> tuple[Any, Any]:  # within: a worker has not this module, so it gets the code
        memory = dask_worker.memory_manager
        return memory.memory_target_fraction, memory.memory_spill_fraction

    def remembered(dask_scheduler: Any) -> list[bytes]:
        import pickle

        streams = [*dask_scheduler.stream_comms.values(), *dask_scheduler.client_comms.values()]
        return [
            pickle.dumps(message) for stream in streams for message in stream.recent_message_log
        ]

    with running(tmp_path / "dask", 1) as dask:
        place = ingested(dask.address)
        job = _stage_job(place)
        assert place.runner.train(job).artifact
        assert not [
            k for k in psutil.Process(dask.workers[0].pid).environ() if k.startswith("AWS_")
        ]
        with Client(dask.address, timeout=30, set_as_default=False) as ours:
            assert list(ours.run(spilling).values()) == [(False, False)]
            assert not [
                m
                for m in ours.run_on_scheduler(remembered)
                if b"X-Amz" in m or place.root.name.encode() in m
            ]
    remote = S3Blobs(place.config.dvc.remote)
    name, other = [n for n in remote.names() if n.startswith("files/")][:2]
    address = remote.signed(name, 3600)
    assert requests.get(address, timeout=30).content == remote.read(name)
    refused = [
        requests.put(address, b"x", timeout=30),
        requests.delete(address, timeout=30),
        requests.get(address.replace(name, other), timeout=30),
        requests.get(address.split("?")[0], timeout=30),
    ]
    assert [answer.status_code for answer in refused] == [403] * 4
    short = remote.signed(name, 1)
    time.sleep(2.5)
    assert requests.get(short, timeout=30).status_code == 403 and remote.read(name)
    assert address not in repr(Task(job, (address,)))


def _stage_job(place: Workspace, shard: int = 0, first: int = 0) -> StageJob:
    """The first stage of a shard, on its slice `first`."""
    from s3t_core.learning.recipe import make_recipe, wanted

    found = place.runner.describe(_describe(place))
    recipe = make_recipe(
        place.config,
        place.backbone,
        found.digest,
        found.tokenizer_digest,
        found.layers,
        found.profile,
    )
    state = place.ledger.state()
    assert state.dataset is not None
    spec = next(
        s
        for s in wanted(recipe, [(first, 1 - first)], state.dataset).stages
        if s.shard == shard and len(s.prefix) == 1
    )
    file = FileRef(
        place.root / "data" / slice_path(spec.shard, spec.prefix[0]), spec.slice_digests[0]
    )
    held_out = FileRef(place.root / "data" / HELD_OUT_PATH, state.dataset.held_out.digest)
    return StageJob(recipe, spec, (file,), (), held_out, place.store, place.keys)


def test_a_cluster_that_dies_is_an_error_and_never_a_wait_without_end(
    stack: Stack, ingested: Callable[..., Workspace], tmp_path: Path
) -> None:
    from flows.adapters.dask_runner import DaskRunner, Needs

    with running(tmp_path / "dask", 1) as dask:
        place = ingested(dask.address)
        runner = DaskRunner(
            dask.address,
            place.config.dvc.remote,
            place.datasets.versions.object_of,
            Needs(1, 100, 0),
            place.away,
            3,
        )
        runner.describe(_describe(place))
        with_children(dask.workers[0].pid)
        with pytest.raises(TrainingError, match="no Dask worker"):
            runner.describe(_describe(place))
        with_children(dask.scheduler.pid)
        with pytest.raises((TrainingError, WorkspaceError), match="Dask"):
            runner.describe(_describe(place))


class _EndsLate:
    """A job that is done just after the waiting for it gave up, as a machine under load has
    them."""

    def __init__(self) -> None:
        self.over = False

    def done(self) -> bool:
        return self.over

    def result(self, timeout: float) -> str:
        return "trained"


def test_a_job_that_ends_when_the_waiting_for_it_does_is_no_lost_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    future = _EndsLate()

    def wait(futures: list[_EndsLate], timeout: float) -> None:
        futures[0].over = True
        raise TimeoutError(timeout)

    monkeypatch.setattr("distributed.wait", wait)
    runner = DaskRunner("tls://127.0.0.1:1", "", str, Needs(1, 1, 0), cast(AwayFiles, None))
    client = SimpleNamespace(as_current=contextlib.nullcontext, status="running")
    assert runner._result(client, future) == "trained"


def test_a_cluster_without_what_a_task_needs_is_told_how_to_start_workers(
    stack: Stack, ingested: Callable[..., Workspace], tmp_path: Path
) -> None:
    with running(tmp_path / "dask", 1, "CPU=1 MEMORY=16") as dask:
        place = ingested(dask.address)
        with pytest.raises(WorkspaceError, match="start workers with"):
            place.runner.describe(_describe(place))


def test_a_worker_with_another_profile_refuses(
    stack: Stack, ingested: Callable[..., Workspace], tmp_path: Path
) -> None:
    with running(tmp_path / "dask", 1) as dask:
        place = ingested(dask.address)
        job = _stage_job(place)
        other = replace(job.recipe, profile=replace(job.recipe.profile, torch="2.0"))
        with pytest.raises(GuaranteeError, match="numeric profile"):
            place.runner.train(replace(job, recipe=other))


def _describe(place: Workspace) -> Any:
    from s3t_core.learning.jobs import DescribeJob

    return DescribeJob(place.backbone, place.config.training.threads)


# --- who may ask


class Strangers:
    """Ways to ask for a connection, none of them with a certificate of the cluster's authority."""

    def __init__(self, folder: Path, known_by: Path) -> None:
        make_certificates(folder, [])
        plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
        other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        other.check_hostname, other.verify_mode = False, ssl.CERT_NONE
        other.load_cert_chain(folder / CLIENT / "client.pem", folder / CLIENT / "client.key")
        ours = ssl.create_default_context(cafile=str(known_by / CLIENT / "authority.pem"))
        ours.check_hostname = False
        ours.load_cert_chain(known_by / CLIENT / "client.pem", known_by / CLIENT / "client.key")
        self.contexts: dict[str, ssl.SSLContext | None] = {
            "no certificate": plain,
            "another authority": other,
            "tcp": None,
        }
        self.ours = ours


def _told(address: str, context: ssl.SSLContext | None) -> bytes:
    """What a scheduler or worker says first, b"" where it hangs up. Dask's own first words name its
    versions."""
    host, port = address.rpartition("://")[2].rsplit(":", 1)
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 10) as line:
        wrapped = context.wrap_socket(line) if context else line
        if context is None:
            wrapped.sendall(b"\0" * 64)
        return b"" if context is None and wrapped.recv(1) in (b"", b"\x15") else wrapped.recv(1)
    return b""


def test_no_stranger_is_answered_by_scheduler_or_worker(tmp_path: Path) -> None:
    from distributed import Client
    from distributed.security import Security

    with running(tmp_path / "dask", 1) as dask:
        strangers = Strangers(tmp_path / "others", dask.known_by)
        with Client(dask.address, timeout=30, set_as_default=False) as ours:
            ours.wait_for_workers(1, timeout=60)
            assert list(ours.run(os.getpid).values()) == [dask.workers[0].pid]
            addresses = [dask.address, *ours.scheduler_info()["workers"]]
        for address in addresses:
            assert address.startswith("tls://127.0.0.1:")
            assert _told(address, strangers.ours) != b""
            told = {name: _told(address, context) for name, context in strangers.contexts.items()}
            assert told == dict.fromkeys(strangers.contexts, b"")
        folder = tmp_path / "others" / CLIENT
        another = Security(
            require_encryption=True,
            tls_ca_file=str(dask.known_by / CLIENT / "authority.pem"),
            tls_client_cert=str(folder / "client.pem"),
            tls_client_key=str(folder / "client.key"),
        )
        for address, security in (
            (dask.address, another),
            (dask.address.replace("tls", "tcp"), Security(require_encryption=False)),
        ):
            with (
                pytest.raises((OSError, TimeoutError)),
                Client(address, timeout=3, set_as_default=False, security=security) as stranger,
            ):
                stranger.run(os.getpid)


def test_scheduler_and_worker_tell_nothing_without_a_certificate_by_http_either(
    tmp_path: Path,
) -> None:
    import http.client

    with running(tmp_path / "dask", 1) as dask:
        from distributed import Client

        with Client(dask.address, timeout=30, set_as_default=False) as ours:
            ours.wait_for_workers(1, timeout=60)
        listening = [
            (c.laddr.ip, c.laddr.port)
            for p in (dask.scheduler, *dask.workers)
            for c in psutil.Process(p.pid).net_connections("tcp")
            if c.status == psutil.CONN_LISTEN
        ]
        assert len(listening) == 4 and {ip for ip, _ in listening} == {"127.0.0.1"}
        answers = set()
        for ip, port in listening:
            for path in (
                "/",
                "/health",
                "/info/main/workers.html",
                "/json/counts.json",
                "/metrics",
                "/status",
            ):
                asked = http.client.HTTPConnection(ip, port, timeout=10)
                with (
                    contextlib.closing(asked),
                    contextlib.suppress(OSError, http.client.HTTPException),
                ):
                    asked.request("GET", path)
                    answers.add(asked.getresponse().status)
        assert answers == {404}


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("tcp://127.0.0.1:1", False),
        ("tcp://10.0.0.5:8786", True),
        ("tcp://localhost:8786", True),
        ("10.0.0.5:8786", True),
        ("ws://127.0.0.1:8786", True),
        ("inproc://127.0.0.1/1", True),
    ],
)
def test_a_scheduler_without_tls_is_refused_unless_on_loopback_and_said_so(
    address: str, allowed: bool
) -> None:
    from flows.adapters.dask_connection import connect

    with pytest.raises(WorkspaceError, match=r"tls://HOST:PORT.*plain_tcp_on_loopback"):
        connect(address, allowed, 1)


def test_a_plain_scheduler_on_loopback_is_asked_where_the_operator_says_so() -> None:
    from distributed import LocalCluster

    from flows.adapters.dask_connection import connect, security_for

    assert not security_for("tcp://[::1]:8786", True).require_encryption
    with LocalCluster(
        n_workers=0,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as plain:
        with pytest.raises(WorkspaceError, match="plain_tcp_on_loopback"):
            connect(plain.scheduler_address, False, 10)
        with connect(plain.scheduler_address, True, 10) as asked:
            assert asked.status == "running"


def test_tls_without_a_certificate_or_with_a_key_that_others_can_read_is_refused(
    tmp_path: Path,
) -> None:
    import dask.config

    from flows.adapters.dask_connection import security_for

    make_certificates(tmp_path / "c", [])
    with pytest.raises(WorkspaceError, match=r"got none for ca_file, cert, key; set DASK_CONFIG"):
        security_for("tls://127.0.0.1:8786", False)
    with dask.config.set(of_client(tmp_path / "c")):
        assert security_for("tls://127.0.0.1:8786", False).require_encryption
        (tmp_path / "c" / CLIENT / "client.key").chmod(0o640)
        with pytest.raises(WorkspaceError, match="readable by its owner only"):
            security_for("tls://127.0.0.1:8786", False)
        (tmp_path / "c" / CLIENT / "authority.pem").unlink()
        with pytest.raises(WorkspaceError, match=r"got authority\.pem"):
            security_for("tls://127.0.0.1:8786", False)


def test_a_client_asks_no_scheduler_of_another_authority_and_none_with_a_clients_certificate(
    tmp_path: Path,
) -> None:
    import dask.config

    from flows.adapters.dask_connection import security_for

    for name in ("ours", "others"):
        make_certificates(tmp_path / name, [])
    with dask.config.set(of_client(tmp_path / "ours")):
        asks = security_for("tls://127.0.0.1:8786", False).get_connection_args("client")[
            "ssl_context"
        ]
    answered = {
        (name, role): _shakes_hands(asks, tmp_path / name / role / role)
        for name, role in (("ours", CLUSTER), ("ours", CLIENT), ("others", CLUSTER))
    }
    assert answered == {
        ("ours", CLUSTER): True,
        ("ours", CLIENT): False,
        ("others", CLUSTER): False,
    }


def _shakes_hands(asks: ssl.SSLContext, shown: Path) -> bool:
    answers = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    answers.load_cert_chain(shown.with_suffix(".pem"), shown.with_suffix(".key"))
    there, here = socket.socketpair()

    def answer() -> None:
        with contextlib.suppress(OSError):
            answers.wrap_socket(there, server_side=True)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        asks.wrap_socket(here).close()
    except ssl.SSLError:
        return False
    else:
        return True
    finally:
        here.close()
        thread.join(10)
        there.close()


def test_certificates_are_their_owners_and_renewed_under_the_same_authority(tmp_path: Path) -> None:
    def made() -> str:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "flows.adapters.dask_certificates",
                str(tmp_path / "c"),
                "scheduler.example",
                "10.0.0.5",
            ],
            capture_output=True,
            text=True,
            check=True,
            umask=0,
        )
        return done.stdout + done.stderr

    told = made()
    files = {
        p.relative_to(tmp_path / "c").as_posix(): p.read_bytes()
        for p in (tmp_path / "c").rglob("*.*")
    }
    again = made()
    assert (
        told == again
        and "KEY" not in told
        and all(f.splitlines()[1].decode() not in told for f in files.values() if b"PRIVATE" in f)
    )
    for path in [tmp_path / "c", *(tmp_path / "c").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    changed = {n for n, data in files.items() if (tmp_path / "c" / n).read_bytes() != data}
    assert changed == {
        "cluster/cluster.key",
        "cluster/cluster.pem",
        "client/client.key",
        "client/client.pem",
    }
    assert (
        not list((tmp_path / "c" / CLUSTER).glob("authority.key"))
        and (tmp_path / "c" / AUTHORITY / "authority.key").is_file()
    )
