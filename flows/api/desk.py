"""Who works behind the door: threads that each have the workspace to themselves.

A workspace remembers what it read, so no two threads share one. One reads, one decides, one takes
requests: what several people ask while a transaction runs goes into the next one together, and one
checkpoint acknowledges all of it. It is opened anew when its settings, keys or database changed.
"""

import asyncio
import queue
import threading
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from flows.api.problems import Refused
from flows.settings import CONFIG_NAME
from flows.use_cases.answering import Answered, Answers, Question
from flows.use_cases.documents import Answer
from flows.use_cases.taking import Asked, Taken, take_each
from flows.workspace.intake import IntakeHost
from flows.workspace.layout import HANDED
from flows.workspace.workspace import Workspace
from s3t_core.errors import S3TError, UsageError, WorkspaceError

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")
_MOST_TOGETHER = 500
"""So many people's requests at most are taken at a time."""
_CHECK_SECONDS, _CHECK_SHARE = 5.0, 20
"""Ledger and book are read whole so often at most, and for a twentieth of the time."""
_WAITING = 2000
"""So many wait at most for each thread: who comes then is told to come again."""
STILL_MAY: ContextVar[Callable[[], object]] = ContextVar("still_may", default=lambda: None)
"""Of whoever asks at the door: raises Refused once they may ask no more. It is asked again when
their turn comes, when something is told to the ledger for them, and before they are answered."""


@dataclass(frozen=True)
class _Job:
    """What is asked for, an act unless a seat knows otherwise; its answer; whether whoever asked
    still may."""

    asked: Any
    answer: "Future[Any]" = field(default_factory=Future)
    may: Callable[[], object] = field(default_factory=STILL_MAY.get)

    def begins(self) -> bool:
        """Whether it is to be done now: somebody waits for it who still may ask."""
        if not self.answer.set_running_or_notify_cancel():
            return False
        try:
            self.may()
        except Exception as refused:
            self.answer.set_exception(refused)
            return False
        return True


class Desk:
    """The threads of one door. Close it in the end."""

    def __init__(
        self,
        root: Path,
        seconds: float,
        most_together: int = 1,
    ) -> None:
        """`seconds`: how long somebody is kept waiting for an answer; `most_together`: texts that
        the model is asked at once."""
        self._seconds = seconds
        self._reads = _Seat(root, looks=True)
        self._reads_closed = _Seat(root, tells=False, looks=True)
        self._decides, self._decides_closed = _Seat(root), _Seat(root, tells=False)
        self._plans, self._takes = _Seat(root), _Intake(root)
        self._answers = _Answering(root, most_together)
        self._seats: tuple[_Seat, ...] = (
            self._reads,
            self._reads_closed,
            self._decides,
            self._decides_closed,
            self._plans,
            self._takes,
            self._answers,
        )

    async def read(
        self,
        act: Callable[[Workspace], T],
        tells: bool = False,
    ) -> T:
        """What it finds. `tells`: for somebody who may be told who is in the data."""
        return await self._read((self._reads if tells else self._reads_closed).put(act))

    async def decide(
        self,
        act: Callable[[Workspace], T],
        tells: bool = False,
    ) -> T:
        """What it did: one after the other, each under the workspace's lock."""
        return await self._wait((self._decides if tells else self._decides_closed).put(act))

    async def reckon(
        self,
        act: Callable[[Workspace], T],
    ) -> T:
        """What takes its time and changes nothing."""
        return await self._read(self._plans.put(act))

    async def take(
        self,
        asked: Asked,
    ) -> Taken:
        """The requests, once they and a signed checkpoint of them are durable."""
        taken = await self._wait(self._takes.ask(asked))
        if isinstance(taken, S3TError):
            raise taken
        return taken

    async def answer(self, question: Question) -> Answered:
        """What the version that serves answers."""
        answered = await self._wait(self._answers.ask(question))
        if isinstance(answered, S3TError):
            raise answered
        return answered

    async def stream(
        self, question: Question, check: Callable[[], object]
    ) -> tuple[str, AsyncIterator[Answer]]:
        """The model version that writes, and what, piece by piece; whoever asks next waits for its
        end. It ends early where nobody takes the pieces any more. Before each is given out, the
        version is asked whether it still serves, and `check` whether the reader may still read:
        whatever they raise ends the stream, however much is written already."""
        stream = _Stream(question)
        try:
            version = await self._wait(self._answers.put(stream))
        except BaseException:
            stream.nobody_listens.set()
            raise
        return version, self._pieces(stream, check)

    async def _pieces(
        self, stream: "_Stream", check: Callable[[], object]
    ) -> AsyncIterator[Answer]:
        try:
            while (piece := await self._in_time(stream.next())) is not None:
                check()
                await self._in_time(asyncio.to_thread(stream.confirm))
                yield piece
        finally:
            stream.nobody_listens.set()

    def close(self) -> None:
        """Let each thread end what it does."""
        for seat in self._seats:
            seat.close()

    async def _read(self, answer: "Future[T]") -> T:
        found = await self._wait(answer)
        STILL_MAY.get()()
        return found

    async def _wait(self, answer: "Future[T]") -> T:
        return await self._in_time(asyncio.wrap_future(answer))

    async def _in_time(self, answer: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(answer, self._seconds)
        except TimeoutError:
            raise Refused(
                503,
                "TooLate",
                "expected an answer in time ([api] most_seconds), got none yet. What was asked may "
                "still be done: ask again with the same idempotency key, or look at the request",
                {"retry-after": "10"},
            ) from None


class IntakeDesk(Desk):
    """That of a host apart: it takes requests, and reads what became of them."""

    def __init__(self, root: Path, seconds: float) -> None:
        self._seconds = seconds
        self._reads_closed = _Seat(root, tells=False, opening=IntakeHost, looks=True)
        self._takes = _Intake(root, opening=IntakeHost)
        self._seats = (self._reads_closed, self._takes)


class _Seat:
    """A thread with a workspace of its own."""

    def __init__(
        self,
        root: Path,
        tells: bool = True,
        opening: Callable[[Path], Any] = Workspace,
        looks: bool = False,
    ) -> None:
        """`opening`: opens the workspace, or, on a host apart, what stands for it. `looks`: what is
        done here reads what is new alone, so the book and the ledger are held against each other,
        and against every checkpoint, from time to time."""
        self._root, self._tells, self._opening = root, tells, opening
        self._looks, self._due = looks, float("-inf")
        self._jobs: queue.Queue[_Job | None] = queue.Queue(_WAITING)
        self._opened: tuple[tuple[object, ...], Any] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(
        self,
        asked: object,
    ) -> "Future[Any]":
        """Have it done. Raises Refused where too many wait."""
        job = _Job(asked)
        if self._jobs.full():
            self._drop_cancelled()
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise Refused(
                503,
                "TooMany",
                "expected fewer who wait at once, got more. Ask again in a while",
                {"retry-after": "10"},
            ) from None
        return job.answer

    def _drop_cancelled(self) -> None:
        """Take out what nobody waits for any more."""
        with self._jobs.mutex:
            kept = [j for j in self._jobs.queue if j is None or not j.answer.cancelled()]
            self._jobs.queue.clear()
            self._jobs.queue.extend(kept)

    def close(self) -> None:
        """After what is being done."""
        with suppress(queue.Full):
            self._jobs.put_nowait(None)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._do([job])

    def _do(
        self,
        jobs: list[_Job],
    ) -> None:
        for job in (j for j in jobs if j.begins()):
            try:
                with self._for([job]) as workspace:
                    job.answer.set_result(job.asked(workspace))
            except BaseException as error:
                job.answer.set_exception(error)
                self._forget_after(error)

    @contextmanager
    def _for(self, jobs: Sequence[_Job]) -> Iterator[Any]:
        """The workspace, while something is done for whoever asked these."""

        def permits() -> None:
            for job in jobs:
                job.may()

        workspace = self._workspace()
        workspace.database.permits = permits
        try:
            if self._looks:
                self._look(workspace)
            yield workspace
        finally:
            workspace.database.permits = None

    def _look(self, workspace: Any) -> None:
        """That nothing was changed beside the ledger, where it is time to look. Raises LedgerError,
        and then again at the next question."""
        begun = time.monotonic()
        if begun < self._due:
            return
        workspace.heads.check(workspace.ledger)
        workspace.requests.check()
        took = time.monotonic() - begun
        self._due = begun + max(_CHECK_SECONDS, _CHECK_SHARE * took)

    def _forget_after(
        self,
        error: BaseException,
    ) -> None:
        """Open the workspace anew where what it remembers may be what is wrong."""
        if not isinstance(error, UsageError) or isinstance(error, WorkspaceError):
            self._opened = None

    def _workspace(self) -> Any:
        if self._opened is None or self._opened[0] != _signs_of(self._root, self._opened[1]):
            self._opened, before = None, _signs_of(self._root)
            workspace = self._opening(self._root)
            workspace.database.tells = self._tells
            signs = _signs_of(self._root, workspace)
            self._due = float("-inf")
            self._opened = ((*before, *signs[len(before) :]), workspace)
        return self._opened[1]


class _Together(_Seat, Generic[Q, A]):
    """One that does at once what all who wait ask for."""

    def ask(self, question: Q) -> "Future[A | S3TError]":
        """Have it answered with the next."""
        return self.put(question)

    @abstractmethod
    def _answer(
        self, workspace: Workspace, asked: Sequence[Q]
    ) -> Iterator[tuple[int, A | S3TError]]:
        """An answer to each, or what keeps it from one, by its number."""

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs = [job]
            with suppress(queue.Empty):
                while len(jobs) < _MOST_TOGETHER:
                    another = self._jobs.get_nowait()
                    if another is None:
                        self._jobs.put_nowait(None)
                        break
                    jobs.append(another)
            self._do(jobs)

    def _do(self, jobs: list[_Job]) -> None:
        self._answer_all([job for job in jobs if job.begins()])

    def _answer_all(self, jobs: list[_Job]) -> None:
        """Each is answered as soon as it can be. What nobody foresaw is an answer to whoever's
        question brings it about: the others are asked again, each alone."""
        rest = dict(enumerate(jobs))
        try:
            with self._for(jobs) as workspace:
                for number, result in self._answer(workspace, [job.asked for job in jobs]):
                    if isinstance(result, S3TError):
                        self._forget_after(result)
                    rest.pop(number).answer.set_result(result)
        except BaseException as error:
            self._forget_after(error)
            if isinstance(error, S3TError) or len(jobs) == 1:
                for job in rest.values():
                    job.answer.set_exception(error)
            else:
                for job in rest.values():
                    self._answer_all([job])


class _Intake(_Together[Asked, Taken]):
    """The one that takes requests, and accepts nothing over a book that was changed."""

    def __init__(self, root: Path, opening: Callable[[Path], Any] = Workspace) -> None:
        super().__init__(root, tells=False, opening=opening, looks=True)

    def _answer(
        self,
        workspace: Workspace,
        asked: Sequence[Asked],
    ) -> Iterator[tuple[int, Taken | S3TError]]:
        yield from enumerate(take_each(workspace, asked))


class _Stream:
    """A question whose answer comes in pieces, from the thread that has the model to whoever
    asked. As many wait here as the model writes: it does not wait for a slow listener. `confirm`
    says in any thread that what waits may still be given out."""

    def __init__(self, question: Question) -> None:
        """In the event loop of whoever asked."""
        self.question = question
        self.nobody_listens = threading.Event()
        self.confirm: Callable[[], None] = lambda: None
        self._loop = asyncio.get_running_loop()
        self._came: asyncio.Queue[Answer | BaseException | None] = asyncio.Queue()

    def put(self, piece: Answer | BaseException | None) -> None:
        """From the thread: the next piece is there; there is none more; or what ended it."""
        self._loop.call_soon_threadsafe(self._came.put_nowait, piece)

    async def next(self) -> Answer | None:
        """The next piece, None behind the last one. Raises what ended it."""
        piece = await self._came.get()
        if isinstance(piece, BaseException):
            raise piece
        return piece


class _Answering(_Together[Question, Answered]):
    """The one that has the model: loaded when it is first asked, and again where another version
    serves."""

    def __init__(self, root: Path, most_together: int) -> None:
        self._answers = Answers(most_together)
        super().__init__(root, tells=False)

    def _answer(
        self,
        workspace: Workspace,
        asked: Sequence[Question],
    ) -> Iterator[tuple[int, Answered | S3TError]]:
        return self._answers.to(workspace, asked)

    def _do(self, jobs: list[_Job]) -> None:
        streams = [job for job in jobs if isinstance(job.asked, _Stream)]
        if others := [job for job in jobs if job not in streams]:
            super()._do(others)
        for job in (j for j in streams if j.begins()):
            self._write(job.asked, job.answer)

    def _write(self, stream: _Stream, answer: "Future[str]") -> None:
        """The version that writes is the answer; the pieces come through the stream."""
        try:
            version, pieces, stream.confirm = self._answers.stream(
                self._workspace(), stream.question
            )
        except BaseException as error:
            answer.set_exception(error)
            self._forget_after(error)
            return
        answer.set_result(version)
        try:
            with closing(pieces):
                for piece in pieces:
                    if stream.nobody_listens.is_set():
                        return
                    stream.put(piece)
            stream.put(None)
        except BaseException as error:
            stream.put(error)
            self._forget_after(error)


_OPENED_BY = (
    CONFIG_NAME,
    ".s3t/keys",
    ".s3t/keys/workspace.key",
    ".s3t/keys/signing.key",
    ".s3t/migration.json",
    f".s3t/{HANDED}",
)
"""What is read when a workspace is opened."""


def _signs_of(root: Path, workspace: Any = None) -> tuple[object, ...]:
    """What changes when a workspace has to be opened anew; of one that is open, also that its
    database is another file, after a restore or a move."""
    databases = workspace.database.files()[:1] if workspace is not None else []
    read = [_sign_of(root / name) for name in _OPENED_BY]
    return (*read, *(_sign_of(path)[:1] for path in databases))


def _sign_of(path: Path) -> tuple[object, ...]:
    try:
        info = path.stat()
    except OSError as error:
        return (type(error).__name__,)
    return info.st_ino, info.st_mtime_ns
