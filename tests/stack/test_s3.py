"""Stages in a bucket: whole, verified, destroyed; and the scan that reads buckets."""

import json
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from flows.adapters.dvc_repository import object_name
from flows.adapters.marks import claim_place
from flows.adapters.s3 import S3Blobs
from flows.adapters.workspace_residue import WorkspaceResidue
from flows.use_cases.taking import take_requests
from flows.use_cases.verifying import verify_path
from flows.workspace.workspace import Workspace
from infra.stack import Stack
from s3t_core.erasure.executor import Eraser
from s3t_core.erasure.plan import ErasurePlan
from s3t_core.errors import ArtifactError, StorageError, WorkspaceError
from s3t_core.learning.store import StageStore
from s3t_core.ports import ScanReport
from tests.flows.conftest import CANARY, CANARY_TEXT, people, write_csv
from tests.held import NoScope
from tests.stack.conftest import EVERY


@pytest.fixture
def blobs(stack: Stack, request: pytest.FixtureRequest) -> S3Blobs:
    return S3Blobs(f"s3://s3t/{request.node.name}/stages")


def test_a_stage_is_kept_bound_and_destroyed(blobs: S3Blobs) -> None:
    store = StageStore(blobs, b"k" * 32)
    digest = store.put("key-1", b"weights")
    assert store.get(digest) == b"weights" and store.bindings() == {"key-1": digest}
    assert list(store.digests()) == [digest]
    store.delete(digest)
    store.delete(digest)
    assert not store.holds(digest) and list(blobs.names()) == []


def test_swapped_bytes_and_forged_bindings_are_refused(blobs: S3Blobs) -> None:
    store = StageStore(blobs, b"k" * 32)
    first, second = store.put("key-1", b"one"), store.put("key-2", b"two")
    sidecar = json.loads(blobs.read(f"{first}.json") or b"")
    blobs.write(f"{first}.json", json.dumps(sidecar | {"key": "key-2"}).encode())
    blobs.write(f"{second}.safetensors", b"other")
    assert store.bindings() == {}
    with pytest.raises(ArtifactError, match="got bytes of"):
        store.get(second)


def test_a_bucket_that_keeps_versions_is_refused_with_the_reason(
    stack: Stack, blobs: S3Blobs
) -> None:
    stack.client().create_bucket(Bucket="versioned")
    S3Blobs("s3://versioned/x").check()
    stack.client().put_bucket_versioning(
        Bucket="versioned", VersioningConfiguration={"Status": "Enabled"}
    )
    with pytest.raises(WorkspaceError, match="keeps deleted objects"):
        S3Blobs("s3://versioned/x").check()
    blobs.check()


@pytest.fixture
def bucket(stack: Stack) -> Iterator[str]:
    """One of the test's own, without versioning; gone with it, because each takes seven of the
    server's 64 volumes."""
    name = f"t-{secrets.token_hex(6)}"
    stack.client().create_bucket(Bucket=name)
    yield name
    stack.client().delete_bucket(Bucket=name)


def _versioning(stack: Stack, bucket: str, status: str) -> None:
    stack.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


def test_what_a_bucket_kept_is_told_by_each_removal_by_the_scan_and_when_versioning_is_off_again(
    stack: Stack, bucket: str, tmp_path: Path
) -> None:
    """Of an object that is deleted, of one that is written over; until what was kept is deleted by
    its version."""
    mine, beside = S3Blobs(f"s3://{bucket}/mine"), S3Blobs(f"s3://{bucket}/beside")
    mine.write("gone", b"a very particular morning")
    mine.write("changed", b"a very particular morning")
    _versioning(stack, bucket, "Enabled")
    with pytest.raises(WorkspaceError, match="keep nothing that was deleted"):
        mine.remove("gone")
    mine.write("changed", b"nothing of hers")
    with pytest.raises(WorkspaceError, match="keeps deleted objects"):
        _scan(tmp_path, mine)
    _versioning(stack, bucket, "Suspended")
    for refused in (lambda: _scan(tmp_path, mine), mine.check, lambda: mine.check_gone(["gone"])):
        with pytest.raises(WorkspaceError, match="suspend it, delete the versions"):
            refused()
    beside.check()
    delete_kept(stack, bucket)
    assert _scan(tmp_path, mine).residue == ()
    with pytest.raises(WorkspaceError, match="keep nothing that was deleted"):
        mine.remove("changed")  # it was written while versioning was on
    delete_kept(stack, bucket)
    mine.remove("changed")
    mine.check()


def delete_kept(stack: Stack, bucket: str) -> None:
    """What docs/operations.md, "Buckets", says to do."""
    client = stack.client()
    for version in client.list_object_versions(Bucket=bucket).get("Versions", []):
        if not version["IsLatest"]:
            client.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])


def test_a_remote_of_whoever_configured_it_is_asked_for_versions_of_what_was_destroyed(
    stack: Stack,
    bucket: str,
    make_place: Callable[..., Workspace],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a remote in the user's own DVC settings nothing is searched; what is destroyed there has
    to be gone."""
    from flows.prefect_flows.ingest import ingest

    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "config").write_text(
        f"['remote \"elsewhere\"']\n    url = s3://{bucket}/dvc\n"
    )
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "users"))
    place = make_place()
    ingest(str(place.root), str(write_csv(tmp_path / "people.csv", people())))
    state = Workspace(place.root).ledger.state()
    assert state.dataset is not None
    doomed, beside = state.dataset.held_out.md5, S3Blobs(f"s3://{bucket}/dvc")
    beside.write(object_name(doomed), b"pushed there by hand")
    _versioning(stack, bucket, "Enabled")
    with pytest.raises(WorkspaceError, match="keep nothing that was deleted"):
        place.datasets.destroy({doomed}, [], None)


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    ("at", "off_again"),
    [("destroy", False), ("certify", False), ("certify", True)]
    + [("rewrite", False), ("scan", False)] * EVERY,
)
def test_no_certificate_comes_over_a_bucket_whose_versioning_was_switched_on_meanwhile(
    stack: Stack,
    bucket: str,
    make_place: Callable[..., Workspace],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    off_again: bool,
) -> None:
    """Before a step of the erasure; once off again, with her text in an older version. When what
    was kept is deleted, the erasure goes on, and nothing of hers is there in any version."""
    from flows.prefect_flows.erase import erase
    from flows.prefect_flows.ingest import ingest
    from flows.prefect_flows.train import train

    place = make_place(store={"url": f"s3://{bucket}/stages"}, dvc={"remote": f"s3://{bucket}/dvc"})
    ingest(str(place.root), str(write_csv(tmp_path / "people.csv", people(canary=True))))
    train(str(place.root))
    before = _every_version(stack, bucket)
    request = take_requests(Workspace(place.root), [CANARY])[0]
    run_step = Eraser.run_step

    def switching(eraser: Eraser, step: str, plan: ErasurePlan) -> None:
        if step == at:
            _versioning(stack, bucket, "Enabled")
        if step == at and off_again:
            blobs = S3Blobs(f"s3://{bucket}/stages")
            blobs.write("older", CANARY_TEXT.encode())
            stack.client().delete_object(Bucket=bucket, Key="stages/older")
            _versioning(stack, bucket, "Suspended")
        run_step(eraser, step, plan)

    monkeypatch.setattr(Eraser, "run_step", switching)
    for _ in range(2):
        with pytest.raises(WorkspaceError, match="versioning"):
            erase(str(place.root))
    assert list(Workspace(place.root).certificates_dir.glob("*.json")) == []
    monkeypatch.undo()
    _versioning(stack, bucket, "Suspended")
    delete_kept(stack, bucket)
    erase(str(place.root))
    certificate = place.certificates_dir / f"{request.request_id}.json"
    assert verify_path(certificate, place.keys_dir / "signing.pub")["valid"]
    state, left = Workspace(place.root).ledger.state(), _every_version(stack, bucket)
    gone = {f"dvc/{object_name(md5)}" for md5 in state.destroyed_objects}
    gone |= {k for k in before if k.startswith("stages/") and k.endswith(".safetensors")} - {
        f"stages/{s.digest}.safetensors" for s in state.stages.values()
    }
    assert gone & before and not gone & left and "stages/older" not in left


def _every_version(stack: Stack, bucket: str) -> set[str]:
    return {
        v["Key"] for v in stack.client().list_object_versions(Bucket=bucket).get("Versions", [])
    }


def test_who_may_only_read_cannot_destroy_or_write(stack: Stack, blobs: S3Blobs) -> None:
    blobs.write("a", b"x")
    auditor = stack.client("auditor")
    key = f"{blobs.prefix}a"
    assert auditor.get_object(Bucket="s3t", Key=key)["Body"].read() == b"x"
    for refused in (
        lambda: auditor.put_object(Bucket="s3t", Key=key, Body=b"y"),
        lambda: auditor.delete_object(Bucket="s3t", Key=key),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            refused()
    assert blobs.read("a") == b"x"


def test_a_bucket_that_is_not_there_is_an_error_that_names_no_key(stack: Stack) -> None:
    with pytest.raises(StorageError, match="NoSuchBucket") as caught:
        S3Blobs("s3://no-such-bucket/x").check()
    assert stack.env["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


def _scan(root: Path, blobs: S3Blobs) -> ScanReport:
    return WorkspaceResidue(
        root,
        [],
        NoScope(),
        b"",
        [blobs],
        root / ".s3t" / "tmp",
        frozenset({blobs.url}),
        b"k" * 32,
    ).scan(["the-canary-person"], ["a very particular morning in the harbour"], [])


def test_the_scan_reads_every_object_and_throws_unfinished_uploads_away(
    stack: Stack, blobs: S3Blobs, tmp_path: Path
) -> None:
    blobs.write("clean", b"nothing of hers")
    upload = stack.client().create_multipart_upload(Bucket="s3t", Key=f"{blobs.prefix}half")[
        "UploadId"
    ]
    stack.client().upload_part(
        Bucket="s3t",
        Key=f"{blobs.prefix}half",
        UploadId=upload,
        PartNumber=1,
        Body=b"a very particular morning in the harbour" * 10,
    )
    assert _scan(tmp_path, blobs).residue == ()
    assert (
        stack.client().list_multipart_uploads(Bucket="s3t", Prefix=blobs.prefix).get("Uploads", [])
        == []
    )
    blobs.write("deep/down", b"... a very particular morning in the harbour ...")
    found = _scan(tmp_path, blobs)
    assert found.residue == (f"{blobs.url}/deep/down",) and found.files == 2
    assert not list((tmp_path / ".s3t" / "tmp").iterdir())


def test_the_server_reports_nothing_home(stack: Stack) -> None:
    said = (stack.folder / "logs" / "s3.log").read_text(errors="replace")
    assert "Start Seaweed Master" in said and "telemetry" not in said


def test_what_the_stack_keeps_is_its_users_alone(stack: Stack) -> None:
    """Rows, weights, logs: whoever else has an account on the machine comes no further than the
    directory's names. PostgreSQL runs as another user where this one is root, and closes its
    own."""
    opened = [
        p.relative_to(stack.folder).as_posix()
        for p in stack.folder.iterdir()
        if p.stat().st_mode & 0o077 and p.name not in ("run", "stack.toml")
    ]
    assert opened == []
    assert any((stack.folder / "s3").rglob("*.dat"))
    assert list(Path(tempfile.gettempdir()).glob(f"weed.*.{stack.pid('s3')}")) == []


def test_a_prefix_within_or_around_anothers_is_refused(stack: Stack) -> None:
    """Compared as paths: `a/b` lies in `a`, `ab` beside it."""

    def claim(prefix: str, owner: str) -> None:
        claim_place(
            "[store] url",
            S3Blobs(f"s3://s3t/{prefix}"),
            owner,
            begins=True,
            is_workspace=Path("keys"),
        )

    claim("nested/a/stages", "theirs")
    for prefix in ("nested/a", "nested", "nested/a/stages/deep/er", "nested/a/stages/x"):
        with pytest.raises(WorkspaceError, match="within or around"):
            claim(prefix, "mine")
    for prefix in ("nested/ab", "nested/a/stages2", "nested/b/stages"):
        claim(prefix, "mine")
    assert sorted(S3Blobs("s3://s3t/nested").names()) == [
        f"{p}/s3t-owner" for p in ("a/stages", "a/stages2", "ab", "b/stages")
    ]
