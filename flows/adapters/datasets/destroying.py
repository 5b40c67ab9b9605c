"""Data objects are destroyed one by one, in the cache and in every remote."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from flows.adapters.datasets.stored import (
    StoredFiles,
    is_parquet,
    is_whole,
)
from flows.adapters.dvc_repository import (
    md5_named,
    object_name,
)
from flows.adapters.footing import refuse_link
from flows.adapters.matching import Matcher
from flows.adapters.s3 import S3Blobs, is_bucket
from s3t_core.domain import (
    DatasetVersion,
)
from s3t_core.errors import StorageError
from s3t_core.files import (
    is_half_written,
    remove_file,
)
from s3t_core.identity_index import (
    holds_any,
    is_index,
)
from s3t_core.ports import Target
from s3t_core.slicefile import (
    is_slice_file,
)


class ObjectDestroyer:
    """Destroys objects."""

    def __init__(self, files: StoredFiles) -> None:
        self._files = files

    def destroy(
        self, objects: Iterable[str], targets: list[Target], live: DatasetVersion | None
    ) -> list[str]:
        """Remove data objects from the cache and every configured remote unless `live` needs them,
        and any slice file in the local cache that holds a targeted row: a crash may have left it
        before the ledger knew it. Nobody can say what is in a damaged Parquet file of the cache: it
        goes from there, whosever it was. Other people's objects in a shared repository are not
        touched."""
        match = Matcher(targets)
        needed = {v.md5 for v in live.files()} | {live.version} if live else set()
        damaged = [
            p
            for p in self._files.repository.objects()
            if is_parquet(p) and not is_whole(p, md5_named(p)) and not is_half_written(p.name)
        ]  # what is still on its way is the sweep's, and the scan's
        unrecorded = {
            md5_named(p)
            for p in set(self._files.repository.objects()).difference(damaged)
            if (match.hits_in(p) if is_slice_file(p) else is_index(p) and holds_any(p, match.whole))
        }
        doomed = sorted((set(objects) | unrecorded) - needed)
        with self._files.repository.opened() as repo:
            stores = self._files.repository.stores_of(repo)
            for store in stores:
                for md5 in doomed if store.fs.protocol == "local" else ():
                    refuse_link(Path(store.oid_to_path(md5)), self._files.root)
            for path in damaged:
                refuse_link(path, self._files.root)
                remove_file(path)
            for md5 in doomed:
                for store in stores:
                    with contextlib.suppress(FileNotFoundError):
                        if store.exists(md5):
                            store.delete(md5)
            left = [md5 for md5 in doomed if any(store.exists(md5) for store in stores)]
        if left:
            raise StorageError(
                f"expected {len(doomed)} data objects to be gone from cache and remotes, "
                f"{len(left)} are left; check permissions, then run `s3t erase` again"
            )
        for url in filter(is_bucket, self._files.repository.remotes()):
            S3Blobs(url).check_gone(map(object_name, doomed))
        return doomed
