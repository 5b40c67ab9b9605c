"""The tables of `s3t.toml` that say what is learnt, for how long it lasts and how it is erased."""

import ipaddress
import math
import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from s3t_core.domain import Combine, Tiers, check_prior
from s3t_core.errors import UsageError

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1)]


def _only(
    value: str,
    works: tuple[str, ...],
    later: tuple[str, ...] = (),
) -> str:
    if value in works:
        return value
    if value in later:
        raise ValueError(
            f"{value!r} does not work yet; this release takes {' or '.join(map(repr, works))}"
        )
    raise ValueError(f"expected {' or '.join(map(repr, (*works, *later)))}, got {value!r}")


def _as_value_error(check: Callable[..., object], *values: object) -> None:
    """Run one of the core's checks where pydantic expects ValueError."""
    try:
        check(*values)
    except UsageError as error:
        raise ValueError(str(error)) from None


def _as_float(value: object) -> object:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


_LONGEST_URL = 2000
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)


class Section(BaseModel):
    """A table of `s3t.toml`: unknown keys are refused, values cannot be changed."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
    )


def _is_of_texts(value: object) -> bool:
    """Whether this is a list of strings, none of them empty."""
    if not isinstance(value, list | tuple):
        return False
    return all(isinstance(v, str) and v for v in value)


def no_nul(column: str) -> str:
    """The name of a column of a source; those with a NUL are the system's own."""
    if "\0" in column:
        raise ValueError("expected the name of a column without a NUL; name it anew in the source")
    return column


class SystemConfig(Section):
    """The shape of the ensemble: m shards, L slices in each, B sequences of them."""

    name: str = Field(
        "my-model",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="registered model name",
    )
    shards: Positive = Field(
        3, description="m: disjoint parts of the records, each trains models of its own"
    )
    slices: Positive = Field(
        3,
        description="L: parts of a shard; a deletion silences one",
    )
    budget: Positive = Field(
        3, description="B: sequences (orders of the slices) trained per shard, 1 to L!"
    )
    sequences: Literal["cyclic", "bms", "optimised"] = Field(
        "cyclic",
        description='which orders: "cyclic" (for a uniform prior), "bms" (budget up to L) or '
        '"optimised"',
    )
    prior: str | tuple[float, ...] = Field(
        "uniform",
        description="chance of the next request per slice of a shard, as [0.5, 0.3, 0.2], or "
        '"uniform"',
    )

    @field_validator("prior", mode="before")
    @classmethod
    def _prior(cls, value: object) -> str | tuple[float, ...]:
        if isinstance(value, str):
            return _only(value, ("uniform",))
        if not isinstance(value, list | tuple) or not all(type(v) in (int, float) for v in value):
            raise ValueError(
                'expected "uniform" or a list with a probability per slice such as [0.5, 0.3, 0.2]'
            )
        return tuple(float(v) for v in value)

    @property
    def slice_prior(self) -> tuple[float, ...]:
        """The prior as a probability per slice of a shard."""
        return (1 / self.slices,) * self.slices if isinstance(self.prior, str) else self.prior

    @model_validator(mode="after")
    def _sequences(self) -> "SystemConfig":
        if not isinstance(self.prior, str):
            _as_value_error(
                check_prior,
                self.prior,
                self.slices,
            )
            if self.sequences == "cyclic" and len(set(self.prior)) > 1:
                raise ValueError(
                    'expected sequences = "bms" or "optimised" with a prior per slice, got '
                    '"cyclic", which takes every slice to be as likely'
                )
        if self.sequences == "bms" and self.budget > self.slices:
            raise ValueError(
                f'expected a budget of at most {self.slices} with sequences = "bms" (a Latin '
                f"square has one sequence per slice), got {self.budget}"
            )
        return self

    @model_validator(mode="after")
    def _budget(self) -> "SystemConfig":
        most = math.factorial(self.slices)
        if self.budget > most:
            raise ValueError(
                f"expected a budget from 1 to {most} ({self.slices} slices have {most} orders), "
                f"got {self.budget}"
            )
        return self


class BackboneConfig(Section):
    """The pretrained model, never changed by training."""

    model: str = Field(
        "minilm", min_length=1, description='"minilm", a local directory, or a hub id'
    )
    revision: str = Field(
        "", description='of a hub id: the full commit, 40 hex digits; "" otherwise'
    )
    max_length: int = Field(
        64, ge=4, le=8192, description="tokens of a text that are read, the rest is cut off"
    )

    @field_validator("revision")
    @classmethod
    def _revision(cls, value: str) -> str:
        if value and not is_commit(value):
            raise ValueError(
                "expected the full commit of the hub id, 40 hex digits in lower case, got "
                f"{value!r}: a branch or a tag moves, and a short commit may become two"
            )
        return value

    @model_validator(mode="after")
    def _pinned(self) -> "BackboneConfig":
        if self.revision and self.model == "minilm":
            raise ValueError(
                'expected no revision with model = "minilm" (the package has one file, told by its '
                f"digest), got {self.revision!r}"
            )
        return self


def is_commit(revision: str) -> bool:
    """Whether this is a full commit of git: 40 hex digits in lower case. It names one content and
    never moves."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


ADAPTER_KINDS = ("lora", "dora", "ia3", "oft", "lokr")

_WHOLE_INPUT = "its vectors join the tokens and so reach every layer above"
_SHARED = "its matrices are shared by the modules of all layers"
_NOT_ISOLABLE = {
    "prefix_tuning": _WHOLE_INPUT,
    "prompt_tuning": _WHOLE_INPUT,
    "p_tuning": _WHOLE_INPUT,
    "adaption_prompt": _WHOLE_INPUT,
    "vera": _SHARED,
    "randlora": _SHARED,
    "vblora": _SHARED,
    "xlora": _SHARED,
    "adalora": "all layers share one budget of ranks, so what one block learns decides what "
    "another keeps",
}


class AdapterConfig(Section):
    """The adapter that each stage trains on its block of layers."""

    kind: str = Field(
        "lora", description='"lora", "dora", "ia3", "oft" or "lokr"; only LoRA answers in one pass'
    )
    rank: Positive = Field(
        8, description="rank r of LoRA, DoRA and LoKr; number of OFT's blocks; unused by IA3"
    )
    alpha: float = Field(
        16.0, gt=0, description="LoRA, DoRA, LoKr: the update is scaled by alpha / r"
    )
    rslora: bool = Field(
        False, description="scale by alpha / sqrt(r) instead (rank-stabilised LoRA)"
    )
    target_modules: tuple[str, ...] = Field(
        ("query", "value"), description="module names inside a layer to adapt"
    )

    @field_validator("alpha", mode="before")
    @classmethod
    def _alpha(cls, value: object) -> object:
        return _as_float(value)

    @field_validator("kind")
    @classmethod
    def _kind(cls, value: str) -> str:
        if value in _NOT_ISOLABLE:
            raise ValueError(
                f"{value!r} cannot be trained and silenced block by block: {_NOT_ISOLABLE[value]}; "
                f"take one of {', '.join(map(repr, ADAPTER_KINDS))}"
            )
        return _only(value, ADAPTER_KINDS)

    @field_validator(
        "target_modules",
        mode="before",
    )
    @classmethod
    def _targets(cls, value: object) -> tuple[str, ...]:
        if (
            not isinstance(value, list | tuple)
            or not value
            or not all(isinstance(v, str) and v for v in value)
        ):
            raise ValueError('expected a list of module names such as ["query", "value"]')
        if len(set(value)) != len(value):
            raise ValueError("expected each module name once")
        return tuple(value)


class TrainingConfig(Section):
    """How one stage is trained: a fixed number of steps, nothing decided by looking at results."""

    epochs: Positive = Field(
        2,
        description="passes over the stage's slices",
    )
    batch_size: Positive = Field(16, description="rows per step")
    learning_rate: Rate = Field(
        2e-3, description="peak rate of the adapter (AdamW, 10% warm-up, linear decay)"
    )
    head_learning_rate: Rate = Field(
        1e-2,
        description="peak rate of the head",
    )
    pooling: Literal["mean", "cls", "last"] = Field(
        "mean", description='"mean" over tokens, "cls" (the first token) or "last" (for decoders)'
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="seed of the whole system; each stage derives its own"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description='"float32", "bfloat16" for frozen linear layers, or "auto": that where the '
        "device multiplies in it",
    )
    device: str = Field(
        "cpu",
        description='"cpu", or "cuda": the first GPU that the process is shown',
    )
    threads: Positive = Field(
        1, description="threads per stage; another number is another numeric profile"
    )

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        return _only(value, ("cpu", "cuda"), ("mps",))


class RunnerConfig(Section):
    """Where stages are trained."""

    kind: str = Field(
        "local", description='"local" (processes of this machine) or "dask" (a cluster)'
    )
    workers: Positive = Field(
        2,
        description="stages trained at the same time, a process each",
    )
    address: str = Field(
        "",
        description='dask: its scheduler, as "tls://10.0.0.5:8786"; store and remote must be s3://',
    )
    plain_tcp_on_loopback: bool = Field(
        False,
        description="dask: ask a scheduler on a loopback address without TLS: everybody on this "
        "machine may run code on its workers",
    )
    task_memory_mb: Positive = Field(
        2048, description="dask: MiB of memory that one stage is given"
    )
    max_memory: str = Field(
        "",
        description="for a backbone larger than a device: what each may hold of it, "
        '"0=20GiB,1=20GiB" or "cpu=8GiB"; frozen layers beyond that stay on disk; "" = it fits',
    )
    activations_mb: int = Field(
        2048,
        ge=0,
        description="MiB of frozen activations kept for later stages, destroyed with their slice; "
        "0 = none",
    )
    measure_rows: int = Field(
        256, ge=0, description="held-out rows that each stage is measured on, for MLflow; 0 = none"
    )

    @field_validator("kind")
    @classmethod
    def _kind(cls, value: str) -> str:
        return _only(value, ("local", "dask"))

    @model_validator(mode="after")
    def _addressed(self) -> "RunnerConfig":
        if (self.kind == "dask") != bool(self.address):
            raise ValueError('expected an address with kind = "dask", and none without')
        return self


class ServingConfig(Section):
    """How versions answer that are registered from now on."""

    combine: Combine = Field(
        "votes",
        description='"votes" (every live shard answers, the mean counts) or "merged" (one model of '
        "them all, made in memory at each load: the price of one)",
    )
    max_new_tokens: Positive = Field(
        128, description="generation: tokens of an answer, where whoever asks says nothing"
    )


class DeletionBudgetConfig(Section):
    """When the deletion-rate budget is spent, so that a full retrain runs."""

    policy: Literal[
        "first_shard_dead",
        "all_shards_dead",
        "mean_depth",
        "accuracy_floor",
        "score_floor",
        "requests",
    ] = Field(
        "first_shard_dead",
        description='"first_shard_dead", "all_shards_dead", "mean_depth", "accuracy_floor", '
        '"score_floor" or "requests"',
    )
    min_mean_depth: float = Field(
        0.0, ge=0, description="mean_depth: spent when the shards' mean depth is under this"
    )
    min_accuracy: float = Field(
        0.0,
        ge=0,
        le=1,
        description="accuracy_floor: spent under this; a retrained version under it never serves; "
        "0 = no floor",
    )
    worst_score: float = Field(
        0.0,
        description="score_floor: the same for whatever [task] metric measures; spent where the "
        "score is worse than this; 0 = no floor",
    )
    max_requests: int = Field(
        0, ge=0, description="requests: spent after so many carried-out requests"
    )
    retrain_first_margin_hours: float = Field(
        24.0,
        ge=0,
        le=24 * 366,
        description="requests that would spend the budget wait for a replacement, if none is due "
        "within so many hours",
    )

    @field_validator(
        "min_mean_depth",
        "min_accuracy",
        "worst_score",
        "retrain_first_margin_hours",
        mode="before",
    )
    @classmethod
    def _float(cls, value: object) -> object:
        return _as_float(value)

    @model_validator(mode="after")
    def _threshold(self) -> "DeletionBudgetConfig":
        needed = {
            "mean_depth": "min_mean_depth",
            "accuracy_floor": "min_accuracy",
            "score_floor": "worst_score",
            "requests": "max_requests",
        }
        key = needed.get(self.policy)
        if key and not getattr(self, key):
            raise ValueError(f'expected {key} above 0 with policy = "{self.policy}", got 0')
        if self.min_accuracy and self.worst_score:
            raise ValueError("expected min_accuracy or worst_score, got both")
        return self

    @property
    def floor(self) -> float:
        """A score that is worse is not good enough, in the units of its metric; 0 where there is
        none."""
        return self.min_accuracy or self.worst_score


class ErasureConfig(Section):
    """Deadlines and what is kept."""

    deadline_days: int = Field(
        30,
        ge=1,
        le=365,
        description="a request is due so many days after it came; up to 31 of them, a month after "
        "at the latest",
    )
    jurisdiction: str = Field(
        "GDPR, articles 12(3) and 17", description="the law that certificates name"
    )
    needs_approval: bool = Field(
        False, description="a request waits for `s3t approve` before it is carried out"
    )
    cron: str = Field(
        "0 3 * * *",
        min_length=9,
        description="when the erase deployment runs, UTC",
    )
    at_once_hours: float = Field(
        24.0,
        ge=0,
        le=24 * 366,
        description="`s3t serve` does not wait for that when a request is due within so many hours",
    )
    staleness_seconds: float = Field(
        5.0, ge=0, le=3600, description="longest time a loaded model trusts its version"
    )
    offline_hours: float = Field(
        0.0,
        ge=0,
        le=24 * 31,
        description="declared offline use: so long a loaded model goes on without its registry; "
        "certificates name it",
    )
    deleted_bytes_hours: float = Field(
        0.0,
        ge=0,
        le=24 * 366,
        description="declared: so long an S3 server may keep the bytes of deleted objects; "
        "certificates name it",
    )
    keep_clean_versions_days: int = Field(
        7, ge=0, description="superseded versions without erased data are kept"
    )
    log_checkpoints_to: str = Field(
        "",
        description='a directory outside the workspace that gets every ledger checkpoint too; "" = '
        "none",
    )

    @field_validator(
        "staleness_seconds", "at_once_hours", "offline_hours", "deleted_bytes_hours", mode="before"
    )
    @classmethod
    def _float(cls, value: object) -> object:
        return _as_float(value)

    @field_validator("log_checkpoints_to")
    @classmethod
    def _checkpoints(cls, value: str) -> str:
        if value and not PurePath(value).is_absolute():
            raise ValueError(
                "expected an absolute path: it must not depend on where a command runs"
            )
        return value


class AuditConfig(Section):
    """The report that `s3t serve` makes by itself."""

    cron: str = Field(
        "0 5 1 * *",
        min_length=9,
        description="when the audit deployment runs, UTC",
    )
    since: str = Field(
        "31d",
        min_length=2,
        description="how far back its report goes",
    )
    replay_stages: int = Field(
        1, ge=0, description="live stages that it trains again and compares; 0 = none"
    )


class PrefectConfig(Section):
    """The Prefect server that the commands of this workspace share on one machine, where
    PREFECT_API_URL names none."""

    idle_minutes: float = Field(
        10.0,
        ge=0,
        le=24 * 60,
        description="it ends by itself when no command has used it for so many minutes",
    )

    @field_validator(
        "idle_minutes",
        mode="before",
    )
    @classmethod
    def _float(cls, value: object) -> object:
        return _as_float(value)


class ApiConfig(Section):
    """The HTTP door (docs/http.md). `s3t serve` opens it once there is a token, on this machine."""

    port: int = Field(4280, ge=1, le=65535, description="where `s3t serve` opens it")
    per_minute: int = Field(
        1200, ge=1, le=10_000_000, description="requests of one token in a minute, on average"
    )
    most_megabytes: int = Field(8, ge=1, le=1024, description="of one request's body")
    most_seconds: float = Field(
        30.0, gt=0, le=600, description="for a request to come, and to be answered"
    )
    texts_together: int = Field(
        32,
        ge=1,
        le=10_000,
        description="texts of several who ask that the model is given at once; last bits of an "
        "answer then depend on who else asks. 1 = each alone",
    )

    @field_validator(
        "most_seconds",
        mode="before",
    )
    @classmethod
    def _float(cls, value: object) -> object:
        return _as_float(value)


class CallbacksConfig(Section):
    """Other systems that are told what becomes of requests (docs/http.md). `s3t serve` sends, and
    so does `s3t callbacks send`."""

    targets: tuple[str, ...] = Field(
        (),
        description='where to, as ["https://hooks.example.org/s3t"]; nothing is sent elsewhere, '
        "nor to an address that is not public",
    )
    outcomes: bool = Field(
        False,
        description="whether they are told how a request was closed, which says who was in the "
        "data",
    )
    most_seconds: float = Field(15.0, gt=0, le=120, description="for an attempt")

    @field_validator("most_seconds", mode="before")
    @classmethod
    def _float(cls, value: object) -> object:
        return _as_float(value)

    @field_validator("targets", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("targets")
    @classmethod
    def _https(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            try:
                found = urlsplit(url)
                bad = found.scheme != "https" or not found.hostname or "@" in found.netloc
                bad = bad or bool(found.fragment) or found.port == 0 or len(url) > _LONGEST_URL
                bad = bad or not _is_host(found.hostname or "", "[" in found.netloc)
            except ValueError:
                bad = True
            if bad or not url.isascii() or not url.isprintable() or " " in url:
                raise ValueError(
                    f"expected https://HOST/PATH of at most {_LONGEST_URL} characters, a HOST as "
                    "it is in DNS, without a name, a password, a fragment or characters beyond "
                    "ASCII, got another"
                )
        if len(set(value)) != len(value):
            raise ValueError("expected each target once, got one twice; take it out")
        return value


def _is_host(name: str, in_brackets: bool) -> bool:
    """Whether it is an address, or a name of labels as DNS has them (RFC 1123, section 2.1)."""
    if in_brackets or name.rpartition(".")[2].isdecimal():
        ipaddress.ip_address(name)
        return True
    return len(name) <= 253 and all(map(_LABEL.fullmatch, name.split(".")))


class TiersConfig(Section):
    """Slices of their own for subjects who are likely to ask, told by an attribute that never
    changes."""

    column: str = Field(
        "",
        description='column with that attribute, the same on all rows of a subject; "" = no tiers',
    )
    values: tuple[tuple[str, ...], ...] = Field(
        (), description='its values per tier, as [["trial"], ["*"]]; "*" = everyone else'
    )
    slices: tuple[int, ...] = Field(
        (), description="slices of each tier in every shard, as [1, 2]; they sum to L"
    )

    @field_validator("column")
    @classmethod
    def _column(cls, value: str) -> str:
        return no_nul(value)

    @field_validator(
        "values",
        mode="before",
    )
    @classmethod
    def _values(cls, value: object) -> tuple[tuple[str, ...], ...]:
        if not isinstance(value, list | tuple) or not all(map(_is_of_texts, value)):
            raise ValueError(
                'expected a list of lists of non-empty strings such as [["trial"], ["*"]]'
            )
        return tuple(tuple(t) for t in value)

    @field_validator(
        "slices",
        mode="before",
    )
    @classmethod
    def _slices(cls, value: object) -> tuple[int, ...]:
        if not isinstance(value, list | tuple) or not all(type(v) is int for v in value):
            raise ValueError("expected a list of slice counts such as [1, 2]")
        return tuple(value)

    @model_validator(mode="after")
    def _whole(self) -> "TiersConfig":
        if self.column:
            _as_value_error(
                Tiers,
                self.column,
                self.values,
                self.slices,
            )
        elif self.values or self.slices:
            raise ValueError("expected a column with the values and slices of tiers, got none")
        return self
