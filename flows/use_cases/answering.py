"""What the version that serves answers to many who ask at once: some texts at a time, and over an
erasure by the version that serves then."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from flows.use_cases.documents import Answer
from flows.use_cases.predicting import Answering, Served, champion_of
from s3t_core.errors import NotNow, S3TError, StaleModel, UsageError

_TRIES = 2


@dataclass(frozen=True)
class Question:
    """What somebody asks of the model: texts, pairs of texts, or chats, as it takes them
    (learning.payload); `params`: how a language model writes."""

    asked: tuple[object, ...]
    params: Mapping[str, object] = field(default_factory=dict)

    @property
    def goes_together(self) -> bool:
        """Whether others' texts beside its own change at most last bits: what is drawn by chance
        depends on its place among all."""
        return not self.params.get("temperature")


@dataclass(frozen=True)
class Answered:
    """The answers, in the order of what was asked, and by which model version."""

    answers: tuple[Answer, ...]
    version: str


class Answers:
    """A loaded version, and who asks it. For one thread."""

    def __init__(self, most_together: int) -> None:
        """`most_together`: texts of several who ask that the model is given at once; 1: each alone,
        so that nobody's answer depends on who else asks."""
        self._most = most_together
        self._model: tuple[Answering, _Serving] | None = None

    def to(
        self, workspace: Served, asked: Sequence[Question]
    ) -> Iterator[tuple[int, Answered | S3TError]]:
        """An answer to each, or what keeps it from one, by its number: those that are asked
        together as soon as they are there, before the model is asked the next. Raises NotNow where
        nothing serves."""
        for group in self._groups(asked):
            yield from self._to_group(workspace, {n: asked[n] for n in group}).items()

    def stream(
        self, workspace: Served, asked: Question
    ) -> tuple[str, Generator[Answer], Callable[[], None]]:
        """The model version that writes; what, piece by piece, the first one is there, close them
        in the end; and what says, in any thread, that the version still serves. Raises what keeps
        it from that; later, both raise StaleModel where another version serves from then on."""
        for last in range(_TRIES):
            model, version = self._loaded(workspace)
            pieces = model.stream(list(asked.asked), asked.params)
            try:
                first = next(pieces)
                return version, self._watched(first, pieces), partial(_confirm, model)
            except StaleModel:
                self._model = None
                if last == _TRIES - 1:
                    raise
        raise AssertionError

    def _watched(self, first: Answer, rest: Iterator[Answer]) -> Generator[Answer]:
        try:
            yield first
            yield from rest
        except StaleModel:
            self._model = None
            raise _stale() from None

    def _groups(self, asked: Sequence[Question]) -> Iterator[list[int]]:
        """Numbers of those who are asked about at once."""
        group, size = list[int](), 0
        for number, each in enumerate(asked):
            fits = (
                group
                and size + len(each.asked) <= self._most
                and each.goes_together
                and asked[group[0]].params == each.params
            )
            if group and not fits:
                yield group
                group, size = [], 0
            group.append(number)
            size += len(each.asked)
        if group:
            yield group

    def _to_group(
        self, workspace: Served, group: Mapping[int, Question]
    ) -> dict[int, Answered | S3TError]:
        together = [text for each in group.values() for text in each.asked]
        params = next(iter(group.values())).params
        try:
            answers, version = self._asked(workspace, together, params)
        except S3TError as error:
            if len(group) == 1 or not isinstance(error, UsageError):
                return dict.fromkeys(group, error)
            return {n: self._to_group(workspace, {n: each})[n] for n, each in group.items()}
        rest = iter(answers)
        return {
            n: Answered(tuple(next(rest) for _ in each.asked), version) for n, each in group.items()
        }

    def _asked(
        self,
        workspace: Served,
        texts: list[object],
        params: Mapping[str, object],
    ) -> tuple[list[Answer], str]:
        for last in range(_TRIES):
            model, version = self._loaded(workspace)
            try:
                return model.predict(texts, params), version
            except StaleModel:
                self._model = None  # another version serves; what is in memory answers no more
                if last == _TRIES - 1:
                    raise
        raise AssertionError

    def _loaded(self, workspace: Served) -> tuple[Answering, str]:
        """What is in memory, where the ledger still says that it serves: the model itself asks the
        registry alone, which may be an older one by now."""
        now = _serving(workspace)
        for _ in range(_TRIES):
            if self._model is None or self._model[1] != now:
                self._model = None  # two need the memory of two
                model, before, now = champion_of(workspace), now, _serving(workspace)
                if before != now:  # nobody can say which of them it is
                    continue
                self._model = model, now
            return self._model[0], now.version
        raise _stale()


@dataclass(frozen=True)
class _Serving:
    """A version, by its number and by the run that it came from: a registry that was begun anew
    gives a number anew."""

    version: str
    run_id: str


def _serving(workspace: Served) -> _Serving:
    """The version that serves now. Raises NotNow where none does."""
    champion = workspace.ledger.champion_so_far()
    if champion is None:
        raise NotNow(
            "expected a model version to serve, got none; run `s3t ingest SOURCE` and "
            "`s3t train`, then ask again"
        )
    return _Serving(champion.version, champion.run_id)


def _confirm(model: Answering) -> None:
    """That the version that was loaded still serves. Raises StaleModel."""
    try:
        model.confirm()
    except StaleModel:
        raise _stale() from None


def _stale() -> StaleModel:
    return StaleModel(
        "expected one version to serve until all was given out, got another meanwhile (an erasure "
        "or a training); ask again"
    )
