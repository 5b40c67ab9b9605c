"""What is sent to the door and what it answers, where that is not what commands say with --json
(flows.use_cases.documents). Times are RFC 3339 in UTC."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from flows.use_cases.documents import HistoryEntry, PersonFound, RequestEntry, VersionEntry

_MOST_IDS = 5_000
_MOST_ID = 10_000

Basis = Literal[
    "17(1)",
    "12(2)",
    "12(5)",
    "12(6)",
    "17(3)(a)",
    "17(3)(b)",
    "17(3)(c)",
    "17(3)(d)",
    "17(3)(e)",
    "other",
]
"""Those of s3t_core.erasure.closing.BASES."""

State = Literal[
    "pending",
    "awaiting approval",
    "held",
    "erasing",
    "uncertified",
    "deferred",
    "erased",
    "held out only",
    "not trained on yet",
    "nothing found",
    "withdrawal",
    "rejection",
]
"""Those of s3t_core.erasure.closing.STATES."""

JsonObject = dict[str, Any]
Text = Annotated[str, Field(max_length=1_000_000)]
Id = Annotated[str, Field(min_length=1, max_length=_MOST_ID)]


class Body(BaseModel):
    """A JSON object with these members and no other."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Ask(Body):
    """Whom to erase: ids as in the data, or hashes of them; or one record of one subject."""

    subjects: list[Id] = Field(
        [],
        max_length=_MOST_IDS,
        description="ids as in the data; each is a request of its own",
        examples=[["person-004"]],
    )
    hashed: list[Annotated[str, Field(max_length=200)]] = Field(
        [],
        max_length=_MOST_IDS,
        description="instead of ids: `sha256:HEX`, `sha1:HEX` or `md5:HEX` of the id",
    )
    record: str = Field(
        "", max_length=_MOST_ID, description="only this record of the one subject", examples=[""]
    )


class Reason(Body):
    """Why, in a sentence that names nobody: it stands in evidence for ever."""

    reason: str = Field(min_length=1, max_length=1000, examples=["many letters at once"])


class Extension(Reason):
    """More time for one request (GDPR article 12(3))."""

    months: int = Field(2, ge=1, le=2)


class Rejection(Reason):
    """No erasure, on a legal basis."""

    basis: Basis = Field(
        description="an article of the GDPR, or another law, which the reason names"
    )


class Hold(Rejection):
    """No erasure of this subject until it is released."""

    subject: Id = Field(examples=["person-004"])


class Subject(Body):
    """Whom it is about."""

    subject: Id = Field(examples=["person-004"])


class Return(Subject):
    """Whom it is about, or which record of theirs."""

    record: str = Field("", max_length=_MOST_ID, examples=[""])


class ReportAsked(Body):
    """Since when: a day, a time, or how far back; "" is the beginning."""

    since: str = Field("", max_length=40, examples=["30d"])


class Turn(Body):
    """What one said in a chat."""

    role: Annotated[str, Field(max_length=40, examples=["user"])]
    content: Text


class PredictAsked(Body):
    """What the model is asked: one of the three, as its task takes it; and, of a language model,
    how it writes."""

    texts: list[Text] = Field([], max_length=1000, examples=[["a text"]])
    pairs: list[tuple[Text, Text]] = Field([], max_length=1000)
    messages: list[list[Turn]] = Field(
        [], max_length=100, description="chats; an answer follows the last turn of each"
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


_Several = Annotated[
    str, Field(pattern=r"^([0-9]{1,2}(,[0-9]{1,2}){0,3})?$", examples=["3", "2,3"])
]


class PlanAsked(Body):
    """What `s3t plan` is asked, by the names of its options; lists as text, as it takes them. What
    is left out or empty is the workspace's own."""

    shards: _Several = ""
    slices: _Several = ""
    budget: _Several = ""
    sequences: Literal["", "cyclic", "bms", "optimised"] = ""
    prior: Annotated[str, Field(pattern=r"^(uniform|[0-9., ]{0,200})$")] = ""
    subjects: Annotated[int, Field(ge=0, le=10**6)] = 0
    once: bool = False
    zipf: Annotated[float, Field(ge=0, le=100)] = 0.0
    burst: Annotated[int, Field(ge=1, le=10**6)] = 1
    skew: Annotated[str, Field(pattern=r"^([0-9.]{1,8}:[0-9.]{1,8})?$", examples=["0.2:0.8"])] = ""
    tiers: _Several = ""
    records: Annotated[int, Field(ge=0, le=10**12)] = 0
    policy: Literal["", "first_shard_dead", "all_shards_dead", "mean_depth"] = ""
    floor: Annotated[float, Field(ge=0, le=1000)] = 0.0
    requests_per_day: Annotated[float, Field(ge=0, le=10**9)] = 0.0
    target: Annotated[str, Field(pattern=r"^([0-9.]{1,8} ?[a-z]{1,6})?$", examples=["90 days"])] = (
        ""
    )
    rows_per_second: Annotated[float, Field(ge=0, le=10**9)] = 0.0
    runs: Annotated[int, Field(ge=10, le=4000, description="simulated streams of requests")] = 4000
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class Accepted(TypedDict):
    """What stands for what was asked, durable and under a signed checkpoint; ids of those that
    were open before; who is in the data, None for whoever may not be told."""

    requests: list[RequestEntry]
    open_before: list[str]
    found: list[PersonFound] | None


class RequestShown(RequestEntry):
    """A request. `state` is "closed" for one that an erasure ended, and rows and digest are None,
    for whoever may ask and not erase: else they would learn who was in the data. `history`: of one
    that is asked for by its id."""

    scope: str
    days_left: float | None
    extended_from: str | None
    rows: int | None
    history: list[HistoryEntry] | None
    document_sha256: str | None


class Page(TypedDict):
    """Requests, open ones first, by due time. `next`: the cursor of the next page, None for the
    last."""

    requests: list[RequestShown]
    next: str | None


class Held(TypedDict):
    """Whether a subject is held, and how many of its open requests wait."""

    held: bool
    waiting: int


class Lifted(TypedDict):
    """That a subject or record is off the suppression list."""

    lifted: bool


class Versions(TypedDict):
    """Model versions, newest first."""

    versions: list[VersionEntry]


class ReportFiles(TypedDict):
    """A report by its day, with the names of its files."""

    report: str
    files: list[str]


class Reports(TypedDict):
    """Reports, newest first."""

    reports: list[ReportFiles]


class Predicted(TypedDict):
    """The answers, in the order of what was asked, by a model version."""

    answers: list[JsonObject]
    version: str


class Health(TypedDict):
    """That the door answers; `ready`: that it can do what it is for."""

    ready: bool
