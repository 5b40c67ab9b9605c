"""A bucket (S3 and what speaks like it): named objects, destroyed with every unfinished upload.

Where and who: the usual AWS settings from the environment or from files (AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE). They never stand in s3t.toml, in a log or in
an error.

A bucket with versioning keeps what is deleted and what is written over, and anybody with the right
may switch it on at any time. So it is refused when it is opened to be written to, by every removal
whose object it has kept, by every scan, and before a certificate is signed; and so is one where
versioning was on once, as long as an older version lies there.
"""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from s3t_core.errors import StorageError, WorkspaceError

if TYPE_CHECKING:
    from botocore.client import BaseClient

SCHEME = "s3://"
_TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_MISSING = {"NoSuchKey", "404"}
_CLEAN = (
    'suspend it, delete the versions that are not the newest (docs/operations.md, "Buckets", has '
    "the commands), and run the command again"
)
_CLIENT = threading.local()


def is_bucket(url: str) -> bool:
    """Whether a setting names a place in a bucket."""
    return url.startswith(SCHEME)


@dataclass(frozen=True)
class S3Blobs:
    """Objects under a prefix of a bucket, `s3://BUCKET/PREFIX`. Fills the port `Blobs`; may go to
    other processes."""

    url: str
    bucket: str = field(init=False)
    prefix: str = field(init=False)

    def __post_init__(self) -> None:
        bucket, _, prefix = self.url.removeprefix(SCHEME).partition("/")
        if not bucket or not is_bucket(self.url):
            raise WorkspaceError("expected s3://BUCKET/PREFIX, got a URL without a bucket")
        if not {"", ".", ".."}.isdisjoint(prefix.removesuffix("/").split("/") if prefix else ()):
            raise WorkspaceError(
                "expected s3://BUCKET/PREFIX whose prefix is of names, got one with an empty part "
                "or dots, which not everybody reads as the same place"
            )
        object.__setattr__(self, "bucket", bucket)
        object.__setattr__(self, "prefix", f"{prefix.strip('/')}/" if prefix.strip("/") else "")

    def read(self, name: str) -> bytes | None:
        """The object's bytes."""
        with _guarded():
            from botocore.exceptions import ClientError

            try:
                found: bytes = (
                    _client().get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read()
                )
            except ClientError as error:
                if error.response["Error"]["Code"] in _MISSING:
                    return None
                raise
            return found

    def write(self, name: str, data: bytes) -> None:
        """One request: the object is whole or absent."""
        with _guarded():
            _client().put_object(Bucket=self.bucket, Key=self.prefix + name, Body=data)

    def write_new(self, name: str, data: bytes) -> bool:
        """The same where no object has the name, False where one has. A server that knows no such
        condition (RFC 9110, If-None-Match) takes it as any."""
        with _guarded():
            from botocore.exceptions import ClientError

            try:
                _client().put_object(
                    Bucket=self.bucket, Key=self.prefix + name, Body=data, IfNoneMatch="*"
                )
            except ClientError as error:
                if error.response["Error"]["Code"] in _TAKEN:
                    return False
                if error.response["Error"]["Code"] != "NotImplemented":
                    raise
                self.write(name, data)
        return True

    def remove(self, name: str) -> None:
        """Delete the object. Raises WorkspaceError where the bucket has kept it."""
        with _guarded():
            _client().delete_object(Bucket=self.bucket, Key=self.prefix + name)
        self.check_gone([name])

    def names(self) -> Iterable[str]:
        """Names under the prefix, folders included, in order."""
        return self.listed()

    def listed(self) -> dict[str, str]:
        """The same, each with the tag that stands for the object's content (ETag)."""
        with _guarded():
            pages = (
                _client()
                .get_paginator("list_objects_v2")
                .paginate(Bucket=self.bucket, Prefix=self.prefix)
            )
            found = {
                o["Key"].removeprefix(self.prefix): str(o.get("ETag", ""))
                for page in pages
                for o in page.get("Contents", ())
            }
        return {name: found[name] for name in sorted(found)}

    def fetch(self, name: str, path: Path) -> bool:
        """Bring an object to a file; False when it is gone meanwhile."""
        with _guarded():
            from botocore.exceptions import ClientError

            try:
                _client().download_file(self.bucket, self.prefix + name, str(path))
            except ClientError as error:
                if error.response["Error"]["Code"] in _MISSING:
                    return False
                raise
        return True

    def signed(self, name: str, seconds: int) -> str:
        """An address by which anybody may read the object for so long."""
        with _guarded():
            address: str = _client().generate_presigned_url(
                "get_object",
                Params={"Bucket": self.bucket, "Key": self.prefix + name},
                ExpiresIn=seconds,
            )
            return address

    def abort_uploads(self) -> int:
        """Throw away what unfinished multipart uploads left under the prefix; how many."""
        with _guarded():
            left = self._uploads()
            for upload in left:
                _client().abort_multipart_upload(
                    Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                )
            if self._uploads():
                raise StorageError(
                    f"expected no unfinished uploads in bucket {self.bucket!r} after they were "
                    "thrown away, got some; see what uploads there, then run the command again"
                )
            return len(left)

    def _uploads(self) -> list[dict[str, str]]:
        pages = (
            _client()
            .get_paginator("list_multipart_uploads")
            .paginate(Bucket=self.bucket, Prefix=self.prefix)
        )
        return [u for page in pages for u in page.get("Uploads", ())]

    def check(self) -> None:
        """That the bucket is there and keeps no versions: neither those of objects to come, nor
        older ones of objects under the prefix. A delete marker alone hides nothing and holds
        nothing. Raises StorageError, WorkspaceError."""
        with _guarded():
            status = _client().get_bucket_versioning(Bucket=self.bucket).get("Status")
            older = any(not v["IsLatest"] for v in self._versions(""))
        if status == "Enabled":
            raise WorkspaceError(
                f"expected bucket {self.bucket!r} without versioning, got one that keeps deleted "
                f"objects: what is erased would stay. Take a bucket without it, or {_CLEAN}"
            )
        if older:
            self._refuse_kept()

    def check_gone(self, names: Iterable[str]) -> None:
        """That the bucket has no version of these objects. Raises StorageError, WorkspaceError."""
        with _guarded():
            kept = any(
                v["Key"] == self.prefix + name for name in names for v in self._versions(name)
            )
        if kept:
            self._refuse_kept()

    def _versions(self, beginning: str) -> Iterator[dict[str, object]]:
        """Every version of every object whose name begins so, the newest among them; no delete
        markers."""
        pages = (
            _client()
            .get_paginator("list_object_versions")
            .paginate(Bucket=self.bucket, Prefix=self.prefix + beginning)
        )
        return (version for page in pages for version in page.get("Versions", ()))

    def _refuse_kept(self) -> None:
        raise WorkspaceError(
            f"expected bucket {self.bucket!r} to keep nothing that was deleted, got an object of "
            f"which it keeps a version: versioning is on there, or was. Now {_CLEAN}"
        )


def endpoint() -> str:
    """The address of the server that is asked. Raises WorkspaceError, StorageError."""
    with _guarded():
        return str(_client().meta.endpoint_url)


def _client() -> "BaseClient":
    """One client per thread and process."""
    import os

    import boto3
    from botocore.config import Config

    if getattr(_CLIENT, "process", None) != os.getpid():
        _CLIENT.process = os.getpid()
        _CLIENT.client = boto3.session.Session().client(
            "s3",
            config=Config(
                signature_version="s3v4",
                retries={"mode": "standard", "max_attempts": 5},
                connect_timeout=10,
                read_timeout=120,
                s3={"addressing_style": "path"} if os.environ.get("AWS_ENDPOINT_URL") else {},
            ),
        )
    return _CLIENT.client


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise WorkspaceError(
            "expected the package boto3 for an s3:// URL; install s3t[s3]"
        ) from None
    try:
        yield
    except ClientError as error:
        raise StorageError(
            f"the bucket refused ({error.response['Error']['Code']}); check its name, the AWS "
            "settings in the environment and their rights, then run the command again"
        ) from None
    except (BotoCoreError, OSError) as error:
        raise StorageError(
            f"the bucket could not be reached ({type(error).__name__}); check AWS_ENDPOINT_URL and "
            "that it is up, then run the command again"
        ) from None
