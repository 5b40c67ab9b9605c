"""Stages in a bucket: whole, verified, destroyed; and the scan that reads buckets."""

import json
import tempfile
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from flows.adapters.local import WorkspaceResidue
from flows.adapters.marks import claim_place
from flows.adapters.s3 import S3Blobs
from infra.stack import Stack
from s3t_core.errors import ArtifactError, StorageError, WorkspaceError
from s3t_core.learning.store import StageStore
from s3t_core.ports import ScanReport


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


def test_a_bucket_that_keeps_versions_is_refused_with_the_reason(stack: Stack, blobs: S3Blobs) -> None:
    stack.client().create_bucket(Bucket="versioned")
    S3Blobs("s3://versioned/x").check()
    stack.client().put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    with pytest.raises(WorkspaceError, match="keeps deleted objects"):
        S3Blobs("s3://versioned/x").check()
    blobs.check()


def test_who_may_only_read_cannot_destroy_or_write(stack: Stack, blobs: S3Blobs) -> None:
    blobs.write("a", b"x")
    auditor = stack.client("auditor")
    key = f"{blobs.prefix}a"
    assert auditor.get_object(Bucket="s3t", Key=key)["Body"].read() == b"x"
    for refused in (lambda: auditor.put_object(Bucket="s3t", Key=key, Body=b"y"),
                    lambda: auditor.delete_object(Bucket="s3t", Key=key)):
        with pytest.raises(ClientError, match="AccessDenied"):
            refused()
    assert blobs.read("a") == b"x"


def test_a_bucket_that_is_not_there_is_an_error_that_names_no_key(stack: Stack) -> None:
    with pytest.raises(StorageError, match="NoSuchBucket") as caught:
        S3Blobs("s3://no-such-bucket/x").check()
    assert stack.env["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


def _scan(root: Path, blobs: S3Blobs) -> ScanReport:
    return WorkspaceResidue(root, [], list, b"", [blobs], root / ".s3t" / "tmp",
                            frozenset({blobs.url}), lambda: lambda _: False).scan(
        ["the-canary-person"], ["a very particular morning in the harbour"], [])


def test_the_scan_reads_every_object_and_throws_unfinished_uploads_away(
        stack: Stack, blobs: S3Blobs, tmp_path: Path) -> None:
    blobs.write("clean", b"nothing of hers")
    upload = stack.client().create_multipart_upload(Bucket="s3t", Key=f"{blobs.prefix}half")["UploadId"]
    stack.client().upload_part(Bucket="s3t", Key=f"{blobs.prefix}half", UploadId=upload, PartNumber=1,
                               Body=b"a very particular morning in the harbour" * 10)
    assert _scan(tmp_path, blobs).residue == ()
    assert stack.client().list_multipart_uploads(Bucket="s3t", Prefix=blobs.prefix).get("Uploads", []) == []
    blobs.write("deep/down", b"... a very particular morning in the harbour ...")
    found = _scan(tmp_path, blobs)
    assert found.residue == (f"{blobs.url}/deep/down",) and found.files == 2
    assert not list((tmp_path / ".s3t" / "tmp").iterdir())


def test_the_server_reports_nothing_home(stack: Stack) -> None:
    said = (stack.folder / "logs" / "s3.log").read_text(errors="replace")
    assert "Start Seaweed Master" in said and "telemetry" not in said


def test_what_the_stack_keeps_is_its_users_alone(stack: Stack) -> None:
    """Rows, weights, logs: whoever else has an account on the machine comes no further than the directory's names.
    PostgreSQL runs as another user where this one is root, and closes its own."""
    opened = [p.relative_to(stack.folder).as_posix() for p in stack.folder.iterdir()
              if p.stat().st_mode & 0o077 and p.name not in ("run", "stack.toml")]
    assert opened == []
    assert any((stack.folder / "s3").rglob("*.dat"))
    assert list(Path(tempfile.gettempdir()).glob(f"weed.*.{stack.pid('s3')}")) == []


def test_a_prefix_within_or_around_anothers_is_refused(stack: Stack) -> None:
    """Compared as paths: `a/b` lies in `a`, `ab` beside it."""
    def claim(prefix: str, owner: str) -> None:
        claim_place("[store] url", S3Blobs(f"s3://s3t/{prefix}"), owner, begins=True, is_workspace=Path("keys"))
    claim("nested/a/stages", "theirs")
    for prefix in ("nested/a", "nested", "nested/a/stages/deep/er", "nested/a/stages/x"):
        with pytest.raises(WorkspaceError, match="within or around"):
            claim(prefix, "mine")
    for prefix in ("nested/ab", "nested/a/stages2", "nested/b/stages"):
        claim(prefix, "mine")
    assert sorted(S3Blobs("s3://s3t/nested").names()) == [
        f"{p}/s3t-owner" for p in ("a/stages", "a/stages2", "ab", "b/stages")]
