"""What is being erased, kept for an erasure to look for: files of ids and texts under a seal."""

import contextlib
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from s3t_core.canonical import canonical_json
from s3t_core.files import (
    locked,
    read_regular,
    remove_file,
    remove_tree,
    sync_directory,
    write_atomically,
    write_new,
)
from s3t_core.keys import is_sealed, keyed_digest, seal_over
from s3t_core.ports import NeedlesFound

_OURS = re.compile(r"req-[0-9A-Za-z-]+")
"""Names of requests that a file of ids may bear."""


class NeedleFiles:
    """The only files that hold what is being erased, 0600, each under a seal: a scan that looked
    for something else would find nothing. One that somebody without the key changed, or put in
    another's place, counts as lost, and the certificate says so. Fills the port `Needles`."""

    def __init__(
        self,
        folder: Path,
        key: bytes,
    ) -> None:
        self.folder = folder
        self._key = key

    def keep_ids(
        self,
        ids: Mapping[str, list[str]],
    ) -> None:
        """Keep the ids as given, by request, in one file, before any of the requests is
        acknowledged."""
        if not ids:
            return
        first, data = min(ids), self._sealed("ids", dict(ids))
        named = self.folder / f"{first if _OURS.fullmatch(first) else _another()}.json"
        while not write_new(named, data, 0o600):  # another process keeps some of the same request
            named = self.folder / f"{_another()}.json"

    def gather(
        self,
        plan_id: str,
        texts: Mapping[str, Iterable[str]],
    ) -> None:
        """Keep the texts that the scan will look for, by request."""
        kept = {request: sorted(set(of)) for request, of in texts.items()}
        write_atomically(
            self.folder / f"{plan_id}.json",
            self._sealed(plan_id, kept),
            0o600,
        )

    def read(
        self,
        plan_id: str,
        recorded: Mapping[str, Iterable[str]],
    ) -> NeedlesFound:
        """What to look for, and what is lost of it. `recorded`: digests of the ids as given, by
        request, as the ledger knows them."""
        given = self._given()
        lost = [
            r
            for r, digests in recorded.items()
            if not given.get(r) or not set(digests) <= {self.digest_of(r, i) for i in given[r]}
        ]
        texts = self._gathered(plan_id)
        wanted = None if texts is None else {r: texts.get(r, texts.get("", [])) for r in recorded}
        return NeedlesFound(
            ids_of={r: given.get(r, []) for r in recorded},
            ids_lost=lost,
            texts_of=wanted,
        )

    def _gathered(
        self,
        plan_id: str,
    ) -> dict[str, list[str]] | None:
        """What was gathered for a plan, by request; under "" by an earlier build, which did not
        tell whose texts are whose. None where it is lost."""
        kept = self._kept(self.folder / f"{plan_id}.json", plan_id)
        by_request = kept if isinstance(kept, dict) else {"": kept}
        texts = {request: _strings(of) for request, of in by_request.items()}
        whole = {request: of for request, of in texts.items() if of is not None}
        return whole if len(whole) == len(texts) else None

    def digest_of(
        self,
        request_id: str,
        given: str,
    ) -> str:
        """By what the ledger knows an id as given of one request: it says nothing of another's, nor
        without the key."""
        return digest_of_id(self._key, request_id, given)

    def ids_of(
        self,
        request_id: str,
    ) -> list[str]:
        """The ids as given of one request, [] when there are none any more."""
        return self._given().get(request_id, [])

    def _given(self) -> dict[str, list[str]]:
        """Every id as given, by request: who asks again in another spelling adds one."""
        given: dict[str, dict[str, None]] = {}
        for _, kept in self._asked():
            for request, ids in kept.items():
                given.setdefault(request, {}).update(dict.fromkeys(ids))
        return {request: list(ids) for request, ids in given.items()}

    def destroy(
        self,
        plan_id: str,
        request_ids: Iterable[str],
    ) -> None:
        """Remove them. Idempotent."""
        gone = set(request_ids)
        self._keep_only(lambda request_id: request_id not in gone)
        if plan_id:
            texts = self._gathered(plan_id) or {}
            self._keep_gathered(plan_id, {r: of for r, of in texts.items() if r and r not in gone})

    def _keep_gathered(
        self,
        plan_id: str,
        texts: Mapping[str, list[str]],
    ) -> None:
        """Nothing is written again but what gets less: a run that was cut off may come twice."""
        if not texts:
            remove_file(self.folder / f"{plan_id}.json")
        elif texts != self._gathered(plan_id):
            self.gather(plan_id, texts)

    def forget(
        self,
        plan_id: str,
        request_ids: Iterable[str],
    ) -> None:
        """Remove the ids of requests that are closed, and what a plan gathered for them, once no
        request is being accepted. Idempotent."""
        with self.accepting():
            self.destroy(plan_id, request_ids)

    @contextlib.contextmanager
    def accepting(self) -> Iterator[None]:
        """Hold this from before ids are kept until it is known whether their requests were
        accepted: meanwhile nobody takes them for what was left, and afterwards everybody may."""
        with locked(self.folder.with_name("accepting.lock")):
            yield

    def prune(
        self,
        keep: Callable[[], Iterable[str]],
    ) -> None:
        """Remove what a crash or a refused request left, however new it looks: everything but what
        `keep` returns."""
        with self.accepting():
            kept = set(keep())
            self._keep_only(lambda request_id: request_id in kept)
            for path in self.folder.glob("plan-*.json"):
                texts = self._gathered(path.stem) if path.stem in kept else None
                if texts is None:
                    remove_file(path)
                    continue
                wanted = {r: of for r, of in texts.items() if not r or r in kept}
                self._keep_gathered(path.stem, wanted)

    def files_of(
        self,
        keep: Callable[[], Iterable[str]],
    ) -> list[Path]:
        """The files that hold nothing but what belongs to the plans and requests that `keep`
        returns: a scan passes over them, and over no other."""
        with self.accepting():
            kept = set(keep())
            plans = [p for p in self.folder.glob("plan-*.json") if self._is_of(p.stem, kept)]
            return plans + [p for p, asked in self._asked() if asked and asked.keys() <= kept]

    def _is_of(
        self,
        plan_id: str,
        kept: set[str],
    ) -> bool:
        texts = self._gathered(plan_id) if plan_id in kept else None
        return texts is not None and texts.keys() <= {"", *kept}

    def _keep_only(
        self,
        wanted: Callable[[str], bool],
    ) -> None:
        """Drop the ids of every request that is not `wanted`. One process at a time: what one
        dropped, another must not write again."""
        if not self.folder.is_dir():
            return
        with locked(self.folder.with_name("needles.lock")):
            for path, kept in self._asked():
                rest = {r: ids for r, ids in kept.items() if wanted(r)}
                if not rest and path.is_dir() and not path.is_symlink():
                    remove_tree(path)  # that somebody put under such a name
                elif not rest:
                    path.unlink(missing_ok=True)
                elif len(rest) < len(kept):
                    write_atomically(
                        path,
                        self._sealed("ids", rest),
                        0o600,
                    )
            sync_directory(self.folder)

    def _asked(self) -> Iterator[tuple[Path, dict[str, list[str]]]]:
        """Every file of ids as given, with what it holds by request. A damaged one holds nothing:
        its ids are lost, and it goes with the next that are destroyed."""
        for path in self.folder.glob("req-*.json"):
            value = self._kept(path, "ids")
            kept = value if isinstance(value, dict) else {}
            yield (
                path,
                {
                    request: ids
                    for request, given in kept.items()
                    if (ids := _strings(given)) is not None
                },
            )

    def _sealed(
        self,
        what: str,
        kept: object,
    ) -> bytes:
        return canonical_json({"kept": kept, "seal": seal_over(self._key, f"needles {what}", kept)})

    def _kept(
        self,
        path: Path,
        what: str,
    ) -> object:
        """What was kept in a file, None where there is nothing that can be read under our seal."""
        try:
            found = json.loads(read_regular(path))
            genuine = is_sealed(self._key, f"needles {what}", found["kept"], found["seal"])
        except (OSError, ValueError, RecursionError, LookupError, TypeError):
            return None
        return found["kept"] if genuine else None


def _another() -> str:
    return f"req-{uuid.uuid4().hex}"


def digest_of_id(
    key: bytes,
    request_id: str,
    given: str,
) -> str:
    """The digest of an id as given of one request, hex (NeedleFiles.digest_of)."""
    return keyed_digest(
        key,
        "id as given",
        request_id,
        given,
    ).hex()


def _strings(value: object) -> list[str] | None:
    """A list of texts, None for anything else."""
    return value if isinstance(value, list) and all(isinstance(v, str) for v in value) else None
