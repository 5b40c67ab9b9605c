"""The DVC repository of a workspace: its cache, those of before, its remotes, and git beside it."""

import contextlib
import io
import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from flows.adapters.git import run_git
from flows.adapters.permissions import as_owner_only, close_to_others
from flows.adapters.s3 import S3Blobs, endpoint, is_bucket
from s3t_core.config.places import is_plain_bucket
from s3t_core.errors import StorageError
from s3t_core.files import SHARED_MODE, read_regular, write_atomically

if TYPE_CHECKING:
    from dvc.config import Config
    from dvc.repo import Repo
    from dvc_data.hashfile.db import HashFileDB

DEFAULT_CACHE = ".dvc/cache"
_OBJECTS = Path("files") / "md5"
"""Where the objects are, below a cache or a remote."""
_REMOTE = "s3t"
_HARMLESS = frozenset(
    (
        "url",
        "jobs",
        "checksum_jobs",
        "verify",
        "read_timeout",
        "connect_timeout",
        "region",
        "cache_regions",
        "use_ssl",
        "ssl_verify",
        "acl",
        "grant_read",
        "grant_read_acp",
        "grant_write_acp",
        "grant_full_control",
        "sse",
        "sse_kms_key_id",
    )
)
"""Options of a remote in a bucket that do not say where it is, who asks, or which version."""
OBJECT_MODE = 0o400
"""Of objects in the cache: DVC lets everybody read them."""


class DvcRepository:
    """Where DVC keeps objects."""

    def __init__(
        self, root: Path, remote: str, recorded: Callable[[], Mapping[str, bool]] = dict
    ) -> None:
        """`remote`: [dvc] remote, wherever DVC's own configuration says that versions are pushed.
        `recorded`: the directories that the ledger tells of as caches, with whether other projects
        share them."""
        self.root = root
        self._remote, self._recorded = remote, recorded

    def local_remotes(self) -> list[Path]:
        """Directories among this repository's own remotes: where copies may be."""
        return [Path(url) for url in self.own_remotes() if "://" not in url]

    def bucket_remotes(self) -> list[S3Blobs]:
        """Buckets among this repository's own remotes. Raises StorageError for a remote of another
        kind, whoever configured it: no object can be searched or destroyed there."""
        urls = self.remotes()
        strange = sorted(
            {url.partition("://")[0] for url in urls if "://" in url and not is_bucket(url)}
        )
        if strange:
            raise StorageError(
                "expected DVC remotes that are directories or s3:// buckets, got "
                f"{', '.join(strange)}; the scan cannot search there: remove such a remote from "
                ".dvc/config, or from the user's or system's DVC configuration"
            )
        if any(map(is_bucket, urls)):
            with self.opened() as repo:
                _check_reached(repo)
        return [S3Blobs(url) for url in self.own_remotes() if is_bucket(url)]

    def pointed_to(self) -> object:
        """The version that data.dvc names, None where it names none."""
        try:
            return yaml.safe_load(read_regular(self.root / "data.dvc"))["outs"][0]["md5"]
        except (OSError, UnicodeError, yaml.YAMLError, LookupError, TypeError):
            return None

    def remotes(self) -> list[str]:
        """Addresses of the configured remotes, also of those that a user's or the system's
        configuration adds."""
        return [str(remote["url"]) for remote in self.configured()["remote"].values()]

    def own_remotes(self) -> list[str]:
        """Addresses of the remotes that this repository's own configuration names. One that comes
        from a user's or the system's configuration is other projects' as well: nothing there is
        ours but the objects that we know by their md5 (`destroy`, `stored`)."""
        config = self.configured()
        return list(
            dict.fromkeys(
                str(remote["url"])
                for level in ("repo", "local")
                for remote in config.load_one(level)["remote"].values()
                if "url" in remote
            )
        )

    @cached_property
    def cache(self) -> Path:
        """Where DVC keeps objects: its own setting, which a user's global config may change."""
        with self.opened() as repo:
            return Path(repo.cache.local.path)

    @property
    def caches(self) -> list[Path]:
        """Where DVC keeps objects now, then where it ever kept them: the directory of a workspace
        that says nothing else, and what the ledger tells of. Which it is may depend on who runs a
        command (HOME, `.dvc/config.local`)."""
        places = [
            self.cache,
            *(self.root / name / _OBJECTS for name in (DEFAULT_CACHE, *self._recorded())),
        ]
        return list({place.resolve(): place for place in places}.values())

    def new_cache(self) -> tuple[str, bool] | None:
        """The directory that DVC keeps objects in now, where neither the default nor the ledger
        names it, and whether other projects share it: as a user's or the system's configuration
        names it, and not this repository's own. A path below the workspace is relative to it."""
        place, known = self.cache.parents[1], (DEFAULT_CACHE, *self._recorded())
        if place.resolve() in {(self.root / name).resolve() for name in known}:
            return None
        config = self.configured()
        own = any(map(self._names_cache, map(config.load_one, ("repo", "local"))))
        within = place.resolve().is_relative_to(self.root.resolve())
        return place.resolve().relative_to(self.root.resolve()).as_posix() if within else str(
            place
        ), not own

    def _names_cache(self, level: Mapping[str, Mapping[str, object]]) -> bool:
        """Whether a level of DVC's configuration says where the cache is: a remote that stands in
        `[cache] local`, on whichever level, comes before `dir`."""
        remote = self.configured().get("cache", {}).get("local")
        if remote:
            found = level.get("remote", {}).get(remote)
            return isinstance(found, Mapping) and "url" in found
        return "dir" in level.get("cache", {})

    def own_caches(self) -> list[Path]:
        """Caches that this repository's own configuration moved out of the repository. One that a
        user's or the system's configuration names is other projects' as well, as with remotes."""
        return [
            self.root / name / _OBJECTS for name, shared in self._recorded().items() if not shared
        ]

    def put_remote_right(self) -> None:
        """Name [dvc] remote in `.dvc/config`, where a restore of older files brought another back:
        who runs `dvc` would push there. The rest of that file stays."""
        configured = self.configured()
        named = configured.load_one("repo")
        if (named["core"].get("remote"), named["remote"].get(_REMOTE, {}).get("url")) == (
            _REMOTE,
            self._remote_url,
        ):
            return
        with configured.edit("repo") as config:
            config["core"]["remote"] = _REMOTE
            config["remote"].setdefault(_REMOTE, {})["url"] = self._remote_url

    @property
    def _remote_url(self) -> str:
        return (
            self._remote if is_bucket(self._remote) else str((self.root / self._remote).absolute())
        )

    def stores_of(self, repo: "Repo") -> "list[HashFileDB]":
        """Where a repository's objects can lie: its cache, those of before, and every remote that
        it knows of."""
        from dvc_data.hashfile.db.local import LocalHashFileDB

        cache = repo.cache.local
        others = [
            p for p in self.caches if p.resolve() != Path(cache.path).resolve() and p.is_dir()
        ]
        return [
            cache,
            *(LocalHashFileDB(cache.fs, str(p)) for p in others),
            *(repo.cloud.get_remote_odb(name) for name in repo.config["remote"]),
        ]

    def objects(self) -> Iterator[Path]:
        """Files that the caches keep, half-written ones among them."""
        return (path for cache in self.caches for path in objects_in(cache))

    def stored(self, objects: Iterable[str]) -> set[str]:
        """Those of the given md5 that lie in the cache or in a configured remote."""
        asked = sorted(objects)
        if not asked:
            return set()
        with self.opened() as repo:
            stores = self.stores_of(repo)
            return {str(md5) for store in stores for md5 in store.oids_exist(asked)}

    def _overriding(self) -> dict[str, object]:
        """Versions are pushed where the settings say, whatever DVC's configuration of this user or
        machine says."""
        return (
            {"core": {"remote": _REMOTE}, "remote": {_REMOTE: {"url": self._remote_url}}}
            if self._remote
            else {}
        )

    def configured(self) -> "Config":
        """DVC's configuration of this repository, of every level: a few files, where opening the
        repository opens its databases too. Raises StorageError as `opened` does."""
        from dvc.config import Config

        with _told():
            with _parsed():
                config = Config(str(self.root / ".dvc"), config=self._overriding())
            _check(config)
            return config

    @contextlib.contextmanager
    def opened(self) -> "Iterator[Repo]":
        """The repository as DVC opens it. Raises StorageError for whatever DVC cannot do."""
        from dvc.repo import Repo
        from dvc_data.hashfile.db.local import LocalHashFileDB

        LocalHashFileDB.CACHE_MODE = OBJECT_MODE
        close_site()
        with _told(), quiet():
            with _parsed():
                opened = Repo(str(self.root), config=self._overriding())
            with opened as repo:
                _check(repo.config)
                yield repo


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tells what DVC cannot do as a StorageError."""
    from dvc.exceptions import DvcException

    try:
        yield
    except ImportError:
        raise StorageError(
            "expected remotes that DVC can reach here, got one whose package is not installed; "
            "install s3t[s3] for a bucket, or take the remote out of DVC's configuration (of the "
            "repository, this user or this machine), then run the command again"
        ) from None
    except (DvcException, OSError, sqlite3.Error) as error:
        raise StorageError(
            f"DVC could not do it ({type(error).__name__}); check .dvc/config, the remote and free "
            "space, then run the command again"
        ) from error


@contextlib.contextmanager
def _parsed() -> Iterator[None]:
    """What DVC reads here is its own configuration, and no other tool's. Raises StorageError for
    one that it cannot take: it lets the errors of its parser through."""
    from fsspec.config import conf

    conf.clear()  # of files of this user: where a bucket is, and who asks
    try:
        yield
    except (TypeError, ValueError, LookupError, SyntaxError) as error:
        raise StorageError(
            f"expected configuration that DVC can read, got {type(error).__name__}; see "
            ".dvc/config, .dvc/config.local and DVC's files of this user and machine, then run the "
            "command again"
        ) from None


def _check(config: "Config") -> None:
    _check_buckets(config["remote"])
    cache = config["cache"]
    _check_cache(cache)
    _check_cache(config["remote"].get(cache.get("local"), {}))


def _check_buckets(remotes: Mapping[str, Mapping[str, object]]) -> None:
    """That every remote in a bucket is to DVC the place that it is to us (adapters.s3): what DVC
    would put elsewhere, no search and no certificate would speak of. Raises StorageError."""
    for name, options in remotes.items():
        url = str(options.get("url", ""))
        if not is_bucket(url):
            continue
        others = sorted({o for o, value in options.items() if value} - _HARMLESS)
        if others:
            raise StorageError(
                f"expected DVC's remote {name!r} to be reached as every bucket is, by AWS's own "
                f"settings (AWS_ENDPOINT_URL, AWS_PROFILE, ...), got {', '.join(others)} in DVC's "
                "configuration: DVC would ask another server, or as another, than the search for "
                f"what is erased. Take it out (`dvc remote modify --unset {name} {others[0]}`, "
                "with --local, --global or --system where it stands there), then run the command "
                "again"
            )
        if not is_plain_bucket(url):
            raise StorageError(
                f"expected s3://BUCKET/PREFIX in plain names as the URL of DVC's remote {name!r}, "
                "got one with empty parts, or with # ? % or the like, which DVC reads as another "
                "place than the search for what is erased; name it otherwise in DVC's "
                "configuration, then run the command again"
            )


def _check_cache(options: Mapping[str, object]) -> None:
    """That the cache is its owner's alone. Raises StorageError."""
    if options.get("shared"):
        raise StorageError(
            "expected DVC's cache to be its owner's alone, got `shared` of [cache], or of the "
            "remote that [cache] local names, in DVC's configuration (of the repository, this user "
            "or this machine), which opens it to a group; take it out, then run the command again"
        )


def _check_reached(repo: "Repo") -> None:
    """That DVC asks the same server for every bucket as we do, whatever else tells it of one.
    Raises StorageError."""
    for name, options in repo.config["remote"].items():
        if not is_bucket(str(options.get("url", ""))):
            continue
        theirs, ours = repo.cloud.get_remote_odb(name).fs.fs.s3.meta.endpoint_url, endpoint()
        if theirs != ours and not (_is_amazons(theirs) and _is_amazons(ours)):
            raise StorageError(
                f"expected DVC to ask the server of AWS's own settings for its remote {name!r}, "
                "got another one; find out which of its settings, or fsspec's, says so, and take "
                "it out"
            )


def _is_amazons(address: str) -> bool:
    return re.fullmatch(r"https://[a-z0-9.-]+\.amazonaws\.com(\.cn)?/?", address) is not None


def close_site() -> None:
    """Let the directory of DVC's notes on the data be its owner's alone: DVC makes it anybody's to
    write in, whatever the umask."""
    site = os.environ.get("DVC_SITE_CACHE_DIR", "")
    for folder in (Path(site), Path(site, "repo")) if site else ():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)


def objects_in(place: Path) -> Iterator[Path]:
    """What a cache or a remote keeps of files, half-written ones among it."""
    found = (p for p in place.glob("??/*") if p.suffix != ".dir")
    return (p for p in found if p.is_file())


def md5_named(path: Path) -> str:
    """What the name of an object in the cache says its md5 is."""
    return path.parent.name + path.name


def is_remote(folder: Path) -> bool:
    """Whether a directory has been a remote of DVC's: it has the directories that DVC 3, or DVC
    before it, keeps objects in. They stay when the objects go."""
    try:
        return (folder / "files" / "md5").is_dir() or any(
            p.is_dir() and re.fullmatch(r"[0-9a-f]{2}", p.name) for p in folder.iterdir()
        )
    except OSError:
        return False


def object_name(md5: str) -> str:
    """Where an object is in a remote, as DVC 3 lays them out."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """DVC talks on stdout and through its loggers; stdout is for this system's own answer."""
    logging.getLogger("dvc").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def init_repositories(root: Path, remote: str) -> None:
    """Make `root` a git and a DVC repository with its remote, analytics off. Leaves existing ones
    as they are."""
    if not (root / ".git").is_file() and not (root / ".git" / "HEAD").exists():
        as_owner_only(root / ".git")  # also where a kill came before git
        _git(root, "init", "-q", "--template=", "-b", "main")
    if not (root / ".dvc" / "config").exists():
        from dvc.repo import Repo

        close_site()
        with quiet():
            Repo.init(str(root)).close()
        close_to_others(root / ".dvc")
        write_remote(root, remote)


def write_remote(root: Path, remote: str) -> None:
    """Write `.dvc/config`: where versions are pushed, no analytics. A path in it is relative to
    `.dvc`. The library that DVC reads it with quotes what has to be. Raises StorageError for a
    place that is read as another one."""
    from configobj import ConfigObj, ConfigObjError

    path = remote if is_bucket(remote) or Path(remote).is_absolute() else f"../{remote}"
    settings = {
        "core": {"analytics": "false", "check_update": "false", "remote": _REMOTE},
        f'remote "{_REMOTE}"': {"url": path},
    }
    content = io.BytesIO()
    try:
        ConfigObj(settings, interpolation=False, indent_type="    ", encoding="utf-8").write(
            content
        )
        read = ConfigObj(io.BytesIO(content.getvalue()), encoding="utf-8").dict()
    except ConfigObjError:
        read = {}
    if read != settings:
        raise StorageError(
            "expected a [dvc] remote that DVC's configuration can hold, got one that is read as "
            "another; give the directory a plainer name"
        )
    write_atomically(root / ".dvc" / "config", content.getvalue(), SHARED_MODE)


def commit_files(root: Path, names: list[str], message: str) -> None:
    """Commit exactly these files, where they changed. Raises StorageError when git refuses."""
    _git(root, "add", "-f", "--", *names)
    if _git(root, "diff", "--cached", "--name-only", "--", *names).strip():
        _git(
            root,
            "-c",
            "commit.gpgsign=false",
            "-c",
            f"core.hooksPath={os.devnull}",
            "commit",
            "-q",
            "--no-verify",
            "-m",
            message,
            "--only",
            "--",
            *names,
        )


def _git(root: Path, *arguments: str) -> str:
    done = run_git("-C", str(root), *arguments)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        reason = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1])
        raise StorageError(
            f"git {arguments[0] if arguments[0] != '-c' else 'commit'} failed: {reason}; put that "
            "right (a lock that a dead git left may be removed), then run the command again"
        )
    return done.stdout
