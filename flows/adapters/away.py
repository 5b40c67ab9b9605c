"""Where rows may lie that jobs on other machines fetched: leases of the temporary directories of
Dask workers.

1. Before a job goes to the cluster, its lease is a file of the workspace: the digests of its data
   files, and every place (a temporary directory of a machine) whose workers may carry it out. A
   worker elsewhere declines the job.
2. A worker works in a directory that bears the job's name, and removes it. Any worker at that place
   removes what dead ones left, with its next job, or when it is asked to look.
3. A place comes out of a lease when a worker there has looked and has nothing of the job, or one at
   the same path in memory of the machine, which was started again since. A lease without a place
   goes.
4. A scan finds a lease of a data file that is destroyed: it has the workers look, waits for a job
   that still works on it, and stops where a place is left. Nobody can say what is there, so nothing
   is certified.

A lease holds no personal data: digests, and the address of the machine. Only the workspace writes
leases, so no worker and no other user of the bucket can take one away.
"""

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from s3t_core.canonical import canonical_json
from s3t_core.errors import ResidueFound, S3TError
from s3t_core.files import read_regular, remove_file, write_atomically

_WAIT_SECONDS = 60
_LOOK_SECONDS = 2


@dataclass(frozen=True)
class Looked:
    """What a worker saw at its place: whose directories are there, by the names of their jobs."""

    place: str
    jobs: frozenset[str]


@dataclass(frozen=True)
class AwayJob:
    """A job whose files' rows may lie on workers' machines. `places`: digest of each to the address
    of its machine. `files` is None where its record cannot be read: it may be of any file, at any
    place."""

    job: str
    files: frozenset[str] | None
    places: Mapping[str, str]


class Looking(Protocol):
    """A runner whose workers look after their places."""

    def look(self) -> list[Looked]:
        """Have every worker remove what dead ones left at its place. Raises S3TError without a
        cluster."""


class AwayFiles:
    """The leases of a workspace, a file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, files: Iterable[str], places: Mapping[str, str]) -> AwayJob:
        """A lease for a new job, durable when this returns."""
        return self._keep(AwayJob(uuid.uuid4().hex, frozenset(files), dict(places)))

    def widen(self, lease: AwayJob, places: Mapping[str, str]) -> AwayJob:
        """The lease with more places, durable when this returns."""
        return self._keep(AwayJob(lease.job, lease.files, {**lease.places, **places}))

    def settle(self, lease: AwayJob, looked: Iterable[Looked]) -> AwayJob:
        """The lease with the places that are left; without any it is gone."""
        seen: dict[str, set[str]] = {}
        for each in looked:
            seen.setdefault(each.place, set()).update(each.jobs)
        left = {
            p: a
            for p, a in lease.places.items()
            if (lease.job in seen[p] if p in seen else not _is_gone(p, seen))
        }
        rest = AwayJob(lease.job, lease.files, left)
        if lease.files is None:
            return lease
        if not left:
            remove_file(self._path(lease.job))
        elif left != lease.places:
            self._keep(rest)
        return rest

    def beyond(self, live: Collection[str]) -> list[AwayJob]:
        """Leases of files that are not all `live` (digests), and those that cannot be read."""
        found = [self._read(path) for path in sorted(self._folder.glob("*.json"))]
        return [
            lease
            for lease in found
            if lease is not None and (lease.files is None or not lease.files <= set(live))
        ]

    def check(
        self,
        live: Collection[str],
        runner: Callable[[], Looking | None],
        wait_seconds: float = _WAIT_SECONDS,
    ) -> None:
        """That no worker's directory may hold rows of files that are not `live` (digests).
        `runner`: the one whose workers can look, None where there is no cluster. Raises
        ResidueFound."""
        until = time.monotonic() + wait_seconds
        while left := self.beyond(live):
            looked, problem = _look(runner)
            left = [
                rest
                for lease in left
                if (rest := self.settle(lease, looked)).places or rest.files is None
            ]
            if not left:
                return
            here = {each.place for each in looked}
            trained = all(lease.files is not None and lease.places.keys() <= here for lease in left)
            if not trained or time.monotonic() > until:
                raise ResidueFound(_render_left(left, trained, problem))
            time.sleep(_LOOK_SECONDS)

    def _keep(self, lease: AwayJob) -> AwayJob:
        write_atomically(
            self._path(lease.job),
            canonical_json(
                {"files": sorted(lease.files or ()), "job": lease.job, "places": dict(lease.places)}
            ),
        )
        return lease

    def _path(self, job: str) -> Path:
        return self._folder / f"{job}.json"

    @staticmethod
    def _read(path: Path) -> AwayJob | None:
        """None for one that is gone meanwhile."""
        try:
            said = json.loads(read_regular(path))
            files, places = said["files"], said["places"]
            whole = said["job"] == path.stem and all(
                isinstance(v, str) for v in (*files, *places, *places.values())
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            whole = False
        return (
            AwayJob(path.stem, frozenset(files), places) if whole else AwayJob(path.stem, None, {})
        )


def in_memory(path: str, boot: str, directory: str) -> str:
    """A place in memory: digests (hex) of machine and path, of the start of the machine, and of the
    directory itself."""
    return ".".join((path, boot, directory))


def _is_gone(place: str, seen: Iterable[str]) -> bool:
    """Whether it was in memory of a machine that was started again before somebody looked at the
    same path there."""
    path, _, rest = place.partition(".")
    boots = {s.split(".")[1] for s in seen if s.startswith(f"{path}.")}
    return bool(rest and boots) and rest.partition(".")[0] not in boots


def _look(runner: Callable[[], Looking | None]) -> tuple[list[Looked], str]:
    """What the workers saw, and why nobody could be asked."""
    try:
        cluster = runner()
        return (cluster.look(), "") if cluster is not None else ([], "[runner] names no cluster")
    except S3TError as error:
        return [], str(error)


def _render_left(left: list[AwayJob], trained: bool, problem: str) -> str:
    machines = sorted({address for lease in left for address in lease.places.values()})
    files = ", ".join(f".s3t/away/{lease.job}.json" for lease in left[:5])
    where = f" at {', '.join(machines[:5])}" if machines else ""
    text = (
        "expected no Dask worker's temporary directory to hold rows of destroyed data, got "
        f"{len(left)} job(s) that may have left some{where}; no certificate was written. "
    )
    if trained:
        return (
            text + "A job there is still working on them: run `s3t erase` again when it has ended"
        )
    asked = f"Nobody could be asked ({problem}). " if problem else ""
    return (
        text
        + asked
        + (
            "Start a worker on that machine with the same TMPDIR, then run `s3t erase` again: it "
            "removes what was left. Where the machine is gone for good, see that its disk is "
            f"destroyed, and take away {files}"
        )
    )
