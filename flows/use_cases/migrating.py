"""Moving a workspace from embedded parts to servers, or back. Ledger, certificates and version
numbers stay.

1. `.s3t/migration.json` says where from and where to, and so does the ledger, before anything is
   written; from then on requests are taken, and nothing else runs (Workspace.refuse_migration). The
   file says how far it is, and no more: where a restore of older files took it away, it is made
   again from the ledger; where one brought it back of a move that is over, it is taken away.
2. Stages, data objects, model versions and runs are copied and read back. A run that was killed
   goes on from there.
3. The database is copied in one transaction of the old one, with a ledger entry that tells of the
   move; the same transaction takes the old tables away. A request is acknowledged by one of them or
   refused, never lost in between.
   Of two databases that are both there the one that went on since counts (use_cases/moves.py).
4. s3t.toml says the new places, and all else that it says by then; the old ones are emptied
   (use_cases/leaving.py): no erasure would reach them any more. An entry tells of the end.

Until step 3 the move can be undone: the new places are emptied, the old ones are as they were.
"""

import contextlib
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from flows.adapters.database import Database
from flows.adapters.dvc_repository import commit_files, object_name, write_remote
from flows.adapters.lease import TRAIN, Lease, lock_place
from flows.adapters.locks import is_held, workspace_lock
from flows.adapters.marks import place_of
from flows.adapters.s3 import S3Blobs, is_bucket
from flows.settings import CONFIG_NAME, read_settings
from flows.use_cases.leaving import LeftPlace
from flows.use_cases.moves import has_moved, is_over, told_by
from flows.workspace import access, stores
from flows.workspace.change import Change, change_under
from flows.workspace.sweeping import sweep
from flows.workspace.workspace import Workspace, refuse_open_plan
from s3t_core.canonical import canonical_json
from s3t_core.config import Config, merge_config, parse_config, render_config
from s3t_core.erasure import events
from s3t_core.erasure.state import State, VersionRecord
from s3t_core.errors import Busy, ConfigError, StorageError, UsageError, WorkspaceError
from s3t_core.files import SHARED_MODE, read_regular, remove_file, remove_tree, write_atomically
from s3t_core.learning.store import Blobs, LocalBlobs

_MOVABLE = ("database", "store", "dvc", "registry")
_WITH_THEM = ("runner",)
"""Sections that may change on the way: they name servers too."""
_FILED = ("store", "dvc")
"""Sections that name a directory or a bucket."""
_SIDES: dict[str, Literal["", "old", "new"]] = {"": "", "old": "old", "new": "new"}


def migrate(
    root: Path, settings: str | bytes, source: str, say: Callable[[str], None]
) -> dict[str, object]:
    """Move the workspace to the places that `settings` (TOML, of the file `source`; "" to finish a
    move that was begun) names. Returns what was moved. Raises UsageError, StorageError,
    WorkspaceError, Busy."""
    with _alone(root) as workspace:
        journal = _journal(workspace, say)
        if journal is None:
            old, new = workspace.config, merge_config(workspace.config, settings, source)
            _check_target(old, new)
            here = Workspace(root, old)
            _check_begin(here, Workspace(root, new, ledger_from=here))
            journal = _Journal(workspace.migration_path, uuid.uuid4().hex, old, new)
            journal.write()
        elif settings and merge_config(journal.old, settings, source) != journal.new:
            raise UsageError(
                "expected the settings of the move that was begun, got others; run `s3t migrate` "
                "without --settings to finish it, or `s3t migrate --undo` first"
            )
        move = _Move(journal, root, say)
        move.check_footing()
        if not move.cut_over():
            move.copy()
        return move.finish()


def undo(root: Path, say: Callable[[str], None]) -> dict[str, object]:
    """Destroy what an unfinished move copied; the workspace stays where it was. Raises UsageError
    when there is none, or when the database has moved already."""
    with _alone(root) as workspace:
        journal = _journal(workspace, say)
        if journal is None:
            raise UsageError("expected an unfinished move, got none; there is nothing to undo")
        move = _Move(journal, root, say)
        if move.cut_over():
            raise UsageError(
                "expected a move whose database is where it was, got one that has moved; run `s3t "
                "migrate` to finish it, then move back with settings that name the old places"
            )
        move.check_footing()
        move.destroy_copies()
        return {"undone": True}


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[Workspace]:
    """Nobody else trains, erases or serves on this machine."""
    workspace = Workspace(root)
    if is_held(workspace.serve_lock_path):
        raise Busy(
            "expected no `s3t serve` in this workspace, got one that runs; stop it, then run the "
            "command again"
        )
    with workspace_lock(workspace.training_lock_path), workspace_lock(workspace.lock_path):
        access.check_footing(workspace)
        yield workspace


@contextlib.contextmanager
def _lease(workspace: Workspace) -> Iterator[Change]:
    """What `_alone` has on this machine, on every other too."""
    with access.lease_of(workspace).held() as lease, change_under(lease) as held:
        yield held


@dataclass(frozen=True)
class _Journal:
    """What `.s3t/migration.json` says: the move's name, where from, where to, and how far it is:
    whether the new places bear the workspace's mark (`claimed`: from then on something may be
    there), and which places are `emptied`."""

    path: Path
    move: str
    old: Config
    new: Config
    claimed: bool = False
    emptied: Literal["", "old", "new"] = ""

    def write(self) -> None:
        """Durable when this returns. Raises StorageError."""
        write_atomically(
            self.path,
            canonical_json(
                {
                    "move": self.move,
                    "old": render_config(self.old),
                    "new": render_config(self.new),
                    "claimed": self.claimed,
                    "emptied": self.emptied,
                }
            ),
        )


def _journal(workspace: Workspace, say: Callable[[str], None]) -> _Journal | None:
    """The unfinished move. One that is over, by a ledger, came back with a restore of files: what
    tells of it is taken away. Raises WorkspaceError for a damaged journal."""
    path = workspace.migration_path
    journal = _read_journal(path, workspace.config) if path.is_file() else None
    if journal is not None and not _is_over(journal, workspace):
        return journal
    if journal is not None:
        say("a move that is over: what told of it had come back, and is taken away")
        remove_file(path)
    return _begun(workspace)


def _is_over(journal: _Journal, workspace: Workspace) -> bool:
    """By any database that may be the workspace's."""
    databases = {
        config.database.url: Database(config.database.url, workspace.root, workspace.keys.sealing)
        for config in (journal.old, journal.new, workspace.config)
    }
    return any(is_over(journal.move, told_by(database)) for database in databases.values())


def _read_journal(path: Path, now: Config) -> _Journal:
    """As it was written, with the settings of now beside the places that it names."""
    try:
        said = json.loads(read_regular(path))
        return _Journal(
            path,
            str(said["move"]),
            _with_places(now, parse_config(str(said["old"]))),
            _with_places(now, parse_config(str(said["new"]))),
            {False: False, True: True}[said["claimed"]],
            _SIDES[said["emptied"]],
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError, ConfigError):
        raise WorkspaceError(
            "expected .s3t/migration.json as `s3t migrate` wrote it, got a damaged file; restore "
            "it from its backup; without one, destroy by hand what was copied to the new places, "
            "then take that file away"
        ) from None


def _begun(workspace: Workspace) -> _Journal | None:
    """The move that the ledger says was begun and not ended; how far it came, nobody knows any
    more."""
    begun = workspace.ledger.state().moving
    if begun is None:
        return None
    everything = {name: section.model_dump(mode="json") for name, section in workspace.config}
    old, new = (
        Config.model_validate({**everything, **getattr(begun, side)}) for side in ("old", "new")
    )
    journal = _Journal(workspace.migration_path, begun.move, old, new, claimed=True)
    journal.write()
    return journal


def _with_places(now: Config, then: Config) -> Config:
    """Settings of now, and the places of then."""
    moved = {name: getattr(then, name) for name in (*_MOVABLE, *_WITH_THEM)}
    return now.model_copy(update=moved)


def _places_in(config: Config) -> dict[str, object]:
    """The sections that name places, as the ledger keeps them: nothing secret is in them."""
    return {
        name: getattr(config, name).model_dump(mode="json") for name in (*_MOVABLE, *_WITH_THEM)
    }


def _check_target(old: Config, new: Config) -> None:
    """Raises UsageError when it is no move, or more than one."""
    changed = [name for name, section in new if section != getattr(old, name)]
    others = [n for n in changed if n not in (*_MOVABLE, *_WITH_THEM)]
    if others:
        raise UsageError(
            f"expected settings of [{'], ['.join((*_MOVABLE, *_WITH_THEM))}] to move to, got "
            f"others of [{'], ['.join(others)}]; change those in s3t.toml, before or after"
        )
    if not set(changed) & set(_MOVABLE):
        raise UsageError(
            "expected settings that name another place, got those of s3t.toml; nothing is to be "
            "moved"
        )


def _check_begin(old: Workspace, new: Workspace) -> None:
    """Before anything is written. Raises UsageError, WorkspaceError, and GuaranteeError while the
    data is not the recorded version: an ingest was interrupted."""
    state = old.ledger.state()
    refuse_open_plan(state)
    _check_apart(old, new)
    with _lease(old) as held:
        stores.claim(old, held)
    old.datasets.files.check_footing()
    old.datasets.files.check_recorded(state.datasets)
    for section in _FILED:
        if getattr(old.config, section) != getattr(new.config, section):
            LeftPlace.of(old, section, old.owner).check_alone()
            LeftPlace.of(new, section, old.owner).check_footing()
    if len(old.datasets.repository.remotes()) > 1:
        raise UsageError(
            "expected one DVC remote, got several in .dvc/config; push to the others after the "
            "move, by hand: take them out of .dvc/config first"
        )
    for bucket in new.buckets:
        bucket.check()
    occupied = []
    if old.config.database != new.config.database and _database(new).occupied():
        occupied.append("[database] url")
    if old.config.dvc != new.config.dvc and _holds(_remote(new)):
        occupied.append("[dvc] remote")
    if old.config.store != new.config.store and list(new.store.digests()):
        occupied.append("[store] url")
    if (
        old.config.registry.tracking_uri != new.config.registry.tracking_uri
        and _embedded(new)
        and any(p.exists() for p in _registry_files(new))
    ):
        occupied.append("[registry]")
    elif new.config.registry.tracking_uri not in ("", old.config.registry.tracking_uri) and (
        new.registry.count() or new.registry.owner() not in ("", old.owner)
    ):
        occupied.append(f"a registered model {new.config.system.name!r}")
    if occupied:
        raise WorkspaceError(
            f"expected empty places to move to, got something at {', '.join(occupied)}: it may be "
            "another workspace's; name other places"
        )


def _check_apart(old: Workspace, new: Workspace) -> None:
    """Raises UsageError for a place that is, or lies within, one that is there already: destroying
    what is left at the one would destroy the other."""

    def where(workspace: Workspace, url: str) -> str:
        return f"{url.rstrip('/')}/" if is_bucket(url) else f"{(workspace.root / url).resolve()}/"

    before = [where(old, old.config.store.url), where(old, old.config.dvc.remote)]
    after = [where(new, new.config.store.url), where(new, new.config.dvc.remote)]
    for moves, url, others in (
        (old.config.store != new.config.store, after[0], [*before, after[1]]),
        (old.config.dvc != new.config.dvc, after[1], [*before, after[0]]),
    ):
        if moves and any(url.startswith(o) or o.startswith(url) for o in others):
            raise UsageError(
                "expected a new place beside the old ones, got one that is the same as, within or "
                "around another of them; name another"
            )


def _holds(blobs: Blobs) -> bool:
    if isinstance(blobs, LocalBlobs):
        return any(p.is_file() for p in blobs.root.rglob("*"))
    return any(not n.endswith("/") for n in blobs.names())


class _Move:
    """From one set of places to another. Every part of it may be done again."""

    def __init__(self, journal: _Journal, root: Path, say: Callable[[str], None]) -> None:
        self._journal, self._say, self._owner = journal, say, ""
        self.old = Workspace(root, journal.old)
        self.new = Workspace(root, journal.new, ledger_from=self.old)
        a, b = journal.old, journal.new
        self._moves = {
            "database": a.database != b.database,
            "store": a.store != b.store,
            "dvc": a.dvc != b.dvc,
            "registry": a.registry.tracking_uri != b.registry.tracking_uri,
        }

    def cut_over(self) -> bool:
        """Whether the ledger tells of this move; of two, the one that went on since. Raises
        GuaranteeError where both did."""
        new = told_by(_database(self.new))
        old = told_by(_database(self.old)) if self._moves["database"] else []
        return has_moved(self._journal.move, old, new)

    def copy(self) -> None:
        """Everything to the new places, the database last. Raises StorageError."""
        old = self.old
        with (
            Lease(old.database, TRAIN, lock_place(old.training_lock_path), fences=False).held(),
            _lease(old) as held,
        ):
            sweep(old, held)
            stores.note_cache(old, held)
            state = old.ledger.state()
            if state.moving is None:
                old.ledger.append(
                    events.MoveBegun(
                        time=old.now(),
                        move=self._journal.move,
                        old=_places_in(self.old.config),
                        new=_places_in(self.new.config),
                    )
                )
                old.signing.write_checkpoint()
            stores.claim(self.new, held, begins=True)
            self._note(claimed=True, emptied="")
            if self._moves["store"]:
                self._copy_stages(state)
            if self._moves["dvc"]:
                self._copy_objects(state)
            moved = events.Migrated(
                time=old.now(),
                move=self._journal.move,
                settings=self.new.pinned.wanted(),
                versions={},
            )
            if self._moves["registry"]:
                moved = replace(moved, **self._copy_registry())
            self._say("the database")
            moved = replace(moved, time=old.now())  # copying may have taken long
            if self._moves["database"]:
                there = _database(self.new)
                there.prepare()
                old.database.move_to(there, moved)
            else:
                old.ledger.append(moved)

    def check_footing(self) -> None:
        """Look at the new places, each time that the move goes on: a disk may have come meanwhile.
        Raises GuaranteeError."""
        access.check_footing(self.new)
        for left in self._places(self.new):
            left.check_footing()

    def finish(self) -> dict[str, object]:
        """Say the new places in s3t.toml, destroy what is at the old ones."""
        root = self.new.root
        now = parse_config(read_settings(root / CONFIG_NAME))  # others may be changed meanwhile
        settings = render_config(_with_places(now, self.new.config))
        write_atomically(root / CONFIG_NAME, settings.encode(), SHARED_MODE)
        if self._moves["dvc"]:
            write_remote(root, self.new.config.dvc.remote)
        workspace = Workspace(root)
        state = workspace.ledger.state()
        left = Workspace(root, self._journal.old, ledger_from=workspace)
        self._owner = workspace.owner
        if (root / ".git").exists():
            commit_files(root, [CONFIG_NAME, ".dvc/config"], "s3t: the workspace moved")
        if state.dataset is not None:
            workspace.datasets.publish(state.dataset)
        workspace.signing.write_checkpoint()
        self._say("what is left at the old places")
        if self._journal.emptied != "old":
            self._destroy(left)
            self._note(emptied="old")
        self._unmark(left)
        if workspace.ledger.state().moved == self._journal.move:
            workspace.ledger.append(events.MoveEnded(time=workspace.now(), move=self._journal.move))
            workspace.signing.write_checkpoint()
        remove_file(self._journal.path)
        return {
            "moved": sorted(k for k, v in self._moves.items() if v),
            "entries": len(workspace.ledger.entries()),
            "requests": len(workspace.requests.all(state)),
            "stages": len(state.stages),
            "objects": len(_objects(state)),
            "versions": sorted((v.version for v in _kept(state)), key=int),
        }

    def destroy_copies(self) -> None:
        """What was copied, before the database was."""
        self._owner = self.old.owner
        if (
            self._journal.claimed and self._journal.emptied != "new"
        ):  # before that, nothing there is ours
            self._destroy(self.new)
            self._note(emptied="new")
        self._unmark(self.new)
        if self.old.ledger.state().moving is not None:
            self.old.ledger.append(events.MoveUndone(time=self.old.now(), move=self._journal.move))
            self.old.signing.write_checkpoint()
        remove_file(self._journal.path)

    def _note(self, **changes: Any) -> None:
        """How far it is."""
        self._journal = replace(self._journal, **changes)
        self._journal.write()

    def _places(self, workspace: Workspace) -> list[LeftPlace]:
        return [
            LeftPlace.of(workspace, section, self._owner)
            for section in _FILED
            if self._moves[section]
        ]

    def _unmark(self, workspace: Workspace) -> None:
        """What was emptied bears no mark any more."""
        for left in self._places(workspace):
            left.forget()

    def _copy_stages(self, state: State) -> None:
        source, target = self.old.store, self.new.store
        there = target.bindings()
        for number, stage in enumerate(state.stages.values(), 1):
            self._say(f"stage {number} of {len(state.stages)}")
            if there.get(stage.key) != stage.digest:
                target.put(stage.key, source.get(stage.digest))
                target.get(stage.digest)  # read back, by its digest

    def _copy_objects(self, state: State) -> None:
        source, target = _remote(self.old), _remote(self.new)
        known = _objects(state)
        for number, md5 in enumerate(known, 1):
            self._say(f"data object {number} of {len(known)}")
            data = source.read(object_name(md5))
            if data is None:
                continue  # never pushed: the present version's come from the cache, in the end
            for found in (data, _written(target, object_name(md5), data)):
                if hashlib.md5(found, usedforsecurity=False).hexdigest() != md5.removesuffix(
                    ".dir"
                ):
                    raise StorageError(
                        f"expected data object {md5[:12]}... unchanged, got other bytes; nothing "
                        "was removed: restore it from its backup, then run the command again"
                    )

    def _copy_registry(self) -> dict[str, Any]:
        """Runs and versions; the ids of their copies."""
        self.old.registry.claim()  # from here on the ledger names both experiments
        self.new.registry.claim()
        state = self.old.ledger.state()
        self._say("training runs")
        if (
            self.new.registry.count()
        ):  # of a try that was cut off: no ledger knows what became of its files since
            self.new.registry.forget()
        wanted = state.runs_of(state.stages)
        runs = self.new.registry.runs.copy_from(self.old.registry.runs, wanted)
        return {"runs": runs, "versions": self._copy_versions(state, set(runs.values()))}

    def _copy_versions(self, state: State, runs: set[str]) -> dict[str, list[str]]:
        source = self.old.registry
        tags = {v.version: source.tags(v.version) for v in _kept(state)}
        target = self.new.registry
        adopted: dict[str, list[str]] = {}
        kept = []
        for number, version in enumerate(_kept(state), 1):
            self._say(f"model version {number} of {len(tags)}")
            made = target.adopt(version, tags[version.version])
            if made.version != version.version:
                raise StorageError(
                    f"expected version {version.version} to be free under its name in the new "
                    f"registry, got {made.version}: there were versions before; take another "
                    "server, or have the registered model deleted there, then run the command again"
                )
            target.check_adopted(version, made)
            adopted[version.version] = [made.run_id, made.model_id, made.document]
            kept.append(
                replace(version, run_id=made.run_id, model_id=made.model_id, document=made.document)
            )
        target.destroy(kept, runs)  # what a killed try left
        if kept:
            target.serve(kept[-1].version)
        return adopted

    def _destroy(self, workspace: Workspace) -> None:
        """What is ours at the places of `place` that are in the move."""
        for left in self._places(workspace):
            left.empty()
        if self._moves["registry"]:
            if _embedded(workspace):
                for path in _registry_files(workspace):
                    remove_tree(path)
            else:
                for url in filter(is_bucket, workspace.registry.places()):
                    S3Blobs(url).abort_uploads()
                workspace.registry.forget()
        if self._moves["database"]:
            _database(workspace).remove(self._owner)


def _database(workspace: Workspace) -> Database:
    """Without asking that it is there."""
    return Database(workspace.config.database.url, workspace.root, workspace.keys.sealing)


def _remote(workspace: Workspace) -> Blobs:
    return place_of(workspace.config.dvc.remote, workspace.root)[0]


def _written(target: Blobs, name: str, data: bytes) -> bytes:
    """What is there after writing, unless it was there before."""
    there = target.read(name)
    if there != data:
        target.write(name, data)
        there = target.read(name)
    return there or b""


def _objects(state: State) -> list[str]:
    """Of every data version that is not destroyed, the directory listings too."""
    known = {m for d in state.datasets for m in (d.version, *(f.md5 for f in d.files()))}
    return sorted(known - state.destroyed_objects)


def _kept(state: State) -> list[VersionRecord]:
    """Versions that are there, oldest first, each once."""
    return sorted(
        {v.version: v for v in state.versions if not v.destroyed}.values(),
        key=lambda v: int(v.version),
    )


def _embedded(workspace: Workspace) -> bool:
    return not workspace.config.registry.tracking_uri


def _registry_files(workspace: Workspace) -> list[Path]:
    return [workspace.state_dir / "mlflow.db", workspace.state_dir / "mlartifacts"]
