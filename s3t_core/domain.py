"""The nouns of the system: frozen, and valid or not constructed.

Terms are the field's (SISA, S3T, GDPR): docs/glossary.md. Slices and shards count from 0; stages
and positions from 1.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from s3t_core.errors import UsageError

Sequence = tuple[int, ...]
"""An order of one shard's slice indices."""


@dataclass(frozen=True, order=True)
class SliceId:
    """One slice: the unit that a deletion silences."""

    shard: int
    index: int

    def __post_init__(self) -> None:
        if self.shard < 0 or self.index < 0:
            raise UsageError(
                f"expected a shard and a slice of at least 0, got {self.shard} and {self.index}"
            )


@dataclass(frozen=True)
class HeldOut:
    """The rows that no stage learns from, and on which a release is measured."""


HELD_OUT = HeldOut()

Part = SliceId | HeldOut
"""A part of the data that holds rows, in a file of its own."""


@dataclass(frozen=True)
class Topology:
    """How many shards (m), slices per shard (L) and sequences per shard (B)."""

    shards: int
    slices: int
    budget: int

    def __post_init__(self) -> None:
        if self.shards < 1 or self.slices < 1:
            raise UsageError(
                f"expected at least one shard and one slice, got {self.shards} and {self.slices}"
            )
        most = math.factorial(self.slices)
        if not 1 <= self.budget <= most:
            raise UsageError(
                f"expected a budget from 1 to {most} ({self.slices} slices have {most} orders), "
                f"got {self.budget}"
            )

    def parts(self) -> list[Part]:
        """The slices, then the held-out rows."""
        return [*self.slice_ids(), HELD_OUT]

    def slice_ids(self) -> list[SliceId]:
        """All m·L slices, by shard then index."""
        return [
            SliceId(shard, index) for shard in range(self.shards) for index in range(self.slices)
        ]

    def span(self) -> tuple[int, int]:
        """All slice indices of a shard, as (first, how many)."""
        return 0, self.slices


@dataclass(frozen=True)
class Tiers:
    """Which slices of every shard each tier of subjects is placed in (method.md, propensity-aware
    placement).

    A row is in the first tier whose `values` hold its value of `column`; "*" stands for every other
    value. Tier i takes the next `slices[i]` slice indices. All of it is literal: nothing here is
    computed from records or requests.
    """

    column: str
    values: tuple[tuple[str, ...], ...]
    slices: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.column or len(self.values) != len(self.slices) or len(self.slices) < 2:
            raise UsageError(
                "expected a column and, for at least two tiers, a list of values and a number of "
                f"slices each, got {len(self.values)} lists and {len(self.slices)} numbers"
            )
        every = [v for tier in self.values for v in tier]
        if not all(self.values) or len(set(every)) != len(every):
            raise UsageError(
                "expected every tier to have values, and every value in one tier only "
                '("*", everyone else, included)'
            )
        if min(self.slices) < 1:
            raise UsageError(f"expected at least one slice for every tier, got {list(self.slices)}")

    def tier_of(self, value: str) -> int | None:
        """The tier of a row with this value, from 0; None when no tier declares it."""
        for wanted in (value, EVERYONE_ELSE):
            for tier, values in enumerate(self.values):
                if wanted in values:
                    return tier
        return None

    def span(self, tier: int) -> tuple[int, int]:
        """The slice indices of a tier, as (first, how many)."""
        return sum(self.slices[:tier]), self.slices[tier]


EVERYONE_ELSE = "*"
"""The value in a tier's list that stands for all values which no list names."""


def check_prior(prior: Collection[float], slices: int) -> tuple[float, ...]:
    """`prior`, the probability of each slice of a shard, as it must be.

    Raises UsageError unless it has one positive, finite probability per slice and they sum to 1
    (within 1e-6).
    """
    if len(prior) != slices:
        raise UsageError(
            f"expected a prior with one probability per slice, {slices} of them, got {len(prior)}"
        )
    if not all(math.isfinite(p) and p > 0 for p in prior):
        raise UsageError(
            "expected every probability of the prior to be above 0 (that nobody of a slice will "
            f"ever ask cannot be promised), got {list(prior)}"
        )
    if abs(sum(prior) - 1) > 1e-6:
        raise UsageError(
            f"expected a prior that sums to 1, got {sum(prior):.6g}; divide each probability by "
            "the sum"
        )
    return tuple(float(p) for p in prior)


@dataclass(frozen=True)
class SliceVersion:
    """One slice's content at one time: its keyed content digest, row count, and the md5 of its file
    (DVC's name)."""

    digest: str
    rows: int
    md5: str


@dataclass(frozen=True)
class DatasetVersion:
    """One version of the data: every slice of every shard, the held-out rows, and by what its
    people may be asked for (None before there was such an index). What its digests of people and
    records are made of: `id_rule`, what does not tell two ids apart in it, and `id_columns`, where
    the ids of subjects and records stood ("" for none), and what text files were read in, where
    that was not UTF-8."""

    version: str
    shards: int
    slices: int
    slice_versions: dict[SliceId, SliceVersion] = field(hash=False)
    held_out: SliceVersion
    identities: SliceVersion | None = None
    id_rule: tuple[str, ...] = ()
    id_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expected = self.shards * self.slices
        if len(self.slice_versions) != expected:
            raise UsageError(f"expected {expected} slices, got {len(self.slice_versions)}")

    def says_who_as(self, other: "DatasetVersion") -> bool:
        """Whether one id has one digest in both: else nobody can say whether a person of the one is
        in the other."""
        return (self.id_rule, self.id_columns) == (other.id_rule, other.id_columns)

    def rows(self) -> int:
        """Training records, held-out ones not counted."""
        return sum(s.rows for s in self.slice_versions.values())

    def files(self) -> list[SliceVersion]:
        """Every file of the version."""
        return [*self.row_files(), *([self.identities] if self.identities else [])]

    def row_files(self) -> list[SliceVersion]:
        """Those that hold people's rows."""
        return list(self.parts().values())

    def parts(self) -> dict[Part, SliceVersion]:
        """The slices, then the held-out rows."""
        return dict[Part, SliceVersion](self.slice_versions.items()) | {HELD_OUT: self.held_out}

    def with_parts(self, parts: Mapping[Part, SliceVersion]) -> "DatasetVersion":
        """The version with these files in the place of its own."""
        return replace(
            self,
            slice_versions=slices_of(parts),
            held_out=parts[HELD_OUT],
        )


def slices_of(parts: Mapping[Part, SliceVersion]) -> dict[SliceId, SliceVersion]:
    """The slices among the parts."""
    return {part: found for part, found in parts.items() if isinstance(part, SliceId)}


@dataclass(frozen=True)
class StageRecord:
    """A trained stage: what it was trained on (key) and what came out (digest).

    `prefix` are the slice indices it saw, `slice_digests` their contents at that time, in the same
    order.
    """

    key: str
    digest: str
    shard: int
    prefix: Sequence
    slice_digests: tuple[str, ...]
    run_id: str = ""

    @property
    def index(self) -> int:
        """Stage number in its replica, from 1: the block it adapts."""
        return len(self.prefix)


@dataclass(frozen=True)
class Replica:
    """One model of one shard. `stages` are its live stages, top block first; empty means dead.

    A stage all of whose slices are empty is never trained (void): it is absent here and does not
    count as depth.
    """

    shard: int
    number: int
    sequence: Sequence
    stages: tuple[StageRecord, ...]

    @property
    def depth(self) -> int:
        """How many trained stages are live. 0 = dead."""
        return len(self.stages)


Combine = Literal["votes", "merged"]
"""How the shards of a release answer: each for itself, or as one model."""


ACCURACY = "accuracy"
"""The metric of rows that are answered with their label, 0 to 1."""


@dataclass(frozen=True)
class Score:
    """How well held-out rows are answered: the `value` of a `metric`, of which higher is better, or
    lower. `low` to `high`: its 95% confidence interval, None where none is known. `combine`: how
    the shards answered, None of one stage, and where that was not told; `otherwise`: the same rows
    answered the other way, None where that was not measured."""

    metric: str
    value: float
    higher_is_better: bool = True
    low: float | None = None
    high: float | None = None
    combine: Combine | None = None
    otherwise: "Score | None" = None

    def misses(self, floor: float) -> bool:
        """Whether it is worse than a floor, in the units of its metric."""
        return self.value < floor if self.higher_is_better else self.value > floor

    @property
    def accuracy(self) -> float | None:
        """Its value where it is an accuracy, else None."""
        return self.value if self.metric == ACCURACY else None

    @property
    def name(self) -> str:
        """Its metric in words."""
        return _SPELT.get(self.metric, self.metric)

    def in_words(self) -> str:
        """Its value in words, an accuracy as a percentage, with the interval where one is known."""
        if self.low is None or self.high is None:
            return self._figure(self.value)
        low, high = self._figure(self.low), self._figure(self.high)
        return f"{self._figure(self.value)} ({low} to {high})"

    def _figure(self, value: float) -> str:
        return f"{100 * value:.1f}%" if self.metric == ACCURACY else f"{value:.4g}"


_SPELT = {"macro_f1": "macro-F1", "micro_f1": "micro-F1", "rmse": "RMSE"}


def as_accuracy(share: float | None) -> Score | None:
    """The score of a share of rows that are answered with their label, 0 to 1; None of none."""
    return None if share is None else Score(ACCURACY, share)


@dataclass(frozen=True)
class Release:
    """What one registry version may serve: every replica with its live stages."""

    release_id: str
    dataset: str
    replicas: tuple[Replica, ...]

    def shards(self) -> list[int]:
        """Shard numbers, in order."""
        return sorted({r.shard for r in self.replicas})

    def serving(self, shard: int) -> Replica | None:
        """The shard's deepest live replica (the lowest number among equals), or None when the shard
        is dead."""
        live = [r for r in self.replicas if r.shard == shard and r.depth]
        return max(
            live,
            key=lambda r: (r.depth, -r.number),
            default=None,
        )

    def live_depth(self, shard: int) -> int:
        """Depth of the replica that answers for the shard; 0 when it is dead."""
        replica = self.serving(shard)
        return replica.depth if replica else 0

    def learned(self) -> set[SliceId]:
        """The slices that the replicas that answer have learned from."""
        answering = [r for r in map(self.serving, self.shards()) if r is not None]
        return {SliceId(r.shard, i) for r in answering for i in r.stages[-1].prefix}

    def stage_keys(self) -> set[str]:
        """Keys of every live stage, of replicas that answer and of those that stand by."""
        return {s.key for r in self.replicas for s in r.stages}


@dataclass(frozen=True)
class DeletionRequest:
    """One acknowledged request. Everything here is a keyed digest or a time; the id as given is in
    the needles file.

    `record` is empty when the whole subject is to be erased. `commitment` is salted and goes into
    the certificate. Times are RFC 3339 UTC.
    """

    request_id: str
    subject: str
    record: str
    suppression: str
    commitment: str
    received: str
    due: str
    certificate: str = ""


@dataclass(frozen=True)
class RowCounts:
    """Rows of one request: in the present training slices, held out, in earlier data versions only,
    in quarantine."""

    training: int = 0
    held_out: int = 0
    earlier: int = 0
    quarantined: int = 0

    @property
    def known(self) -> bool:
        """Whether anything was found anywhere."""
        return bool(self.present or self.earlier)

    @property
    def present(self) -> int:
        """Rows that are stored now. Those of earlier versions are mostly the same ones again."""
        return self.training + self.held_out + self.quarantined
