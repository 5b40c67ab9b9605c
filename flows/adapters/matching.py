"""Which rows are targeted by the requests of an erasure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from s3t_core.ports import Target
from s3t_core.slicefile import read_digests


class Matcher:
    """Which digests are targeted."""

    def __init__(self, targets: list[Target]) -> None:
        self._by_subject: dict[str, list[Target]] = {}
        for target in targets:
            self._by_subject.setdefault(target.subject, []).append(target)
        self.subjects = sorted(self._by_subject)
        self.whole = sorted({t.subject for t in targets if not t.record})

    def hits_in(self, path: Path) -> dict[str, int]:
        """Rows per request in a slice file. Raises DataError when it is not one."""
        return self.hits(read_digests(path, self.subjects))

    def hits(self, digests: Iterable[tuple[str, str]]) -> dict[str, int]:
        """Rows per request among (subject, record) digests."""
        counts: Counter[str] = Counter()
        for subject, record in digests:
            asked = self._by_subject.get(subject, ())
            counts.update(t.request_id for t in asked if t.matches(subject, record))
        return dict(counts)

    def one(self, subject: str, record: str) -> bool:
        """Whether a row is targeted."""
        return any(t.matches(subject, record) for t in self._by_subject.get(subject, ()))

    def requests_of(self, subject: str, record: str) -> list[str]:
        """Requests that target a quarantined row, by the digests of its ids. Without that of a
        record it may be any of its subject's records."""
        return [
            t.request_id
            for t in self._by_subject.get(subject, ())
            if t.matches(subject, record) or not record
        ]


def sorted_of(found: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """What was found of each request, in order."""
    return {request: tuple(sorted(of)) for request, of in found.items()}
