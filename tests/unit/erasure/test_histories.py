"""Random histories of requests, finds, kills and holds: nobody is certified while their text stands
somewhere, nobody is forgotten, and nobody's rows go who did not ask."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from s3t_core.erasure.executor import Eraser
from s3t_core.errors import ResidueFound
from tests.unit.erasure.test_executor import POLICY, Killed, World, make_world

PEOPLE = ("s00-0", "s00-1", "s01-2", "s11-0", "nobody-1")
RECORDS = ("", "", "r0", "r2", "h0")
ENOUGH = 30
"""Erasures in one run: more would be a run without end."""


@dataclass
class History:
    """What happened to a world so far. `asked`: whom and which record each request asks for;
    `there`: which of them had rows then; `untouched`: rows that nobody asked for."""

    world: World
    draw: random.Random
    asked: dict[str, tuple[str, str]] = field(default_factory=dict)
    there: set[str] = field(default_factory=set)
    untouched: set[tuple[str, str]] = field(default_factory=set)

    @property
    def words(self) -> dict[str, str]:
        """What stands in files beside the data, by file."""
        found: dict[str, str] = self.world.ports.residue.words  # type: ignore[attr-defined]
        return found

    def rows(self) -> set[tuple[str, str]]:
        return {row for rows in self.world.datasets.rows.values() for row in rows}

    def ask(self) -> None:
        self._ask(self.draw.choice(PEOPLE), self.draw.choice(RECORDS), by_hash=False)

    def ask_by_hash(self) -> None:
        self._ask(self.draw.choice(PEOPLE), "", by_hash=True)

    def _ask(self, subject: str, record: str, by_hash: bool) -> None:
        suppression = f"hash of {subject}" if by_hash else f"suppressed {subject} {record}"
        state = self.world.ledger.state()
        known = {r.suppression for i, r in state.requests.items() if state.is_open(i)}
        if suppression in known:
            return
        request = f"q{len(self.asked) + 1}"
        self.world.ask(request, subject, record)
        if by_hash:
            told = self.world.ledger.events[-1]
            told |= {"asked_by": "md5", "forms": [subject], "near": []}
            told |= {"subject": suppression, "suppression": suppression}
            held = self.world.requests.requests[request]
            self.world.requests.requests[request] = replace(
                held, subject=suppression, suppression=suppression
            )
        self.asked[request] = (subject, record)
        mine = {(s, r) for s, r in self.rows() if s == subject and record in ("", r)}
        self.there |= {request} if mine else set()
        self.untouched -= mine

    def leave(self) -> None:
        """Something of somebody stands in a file."""
        subject, record = self.draw.choice(PEOPLE), self.draw.choice(("r0", "r2", "h0"))
        words = (subject, f"text of {subject} in {record}")
        self.words[f"log {self.draw.randint(0, 3)}"] = self.draw.choice(words)

    def clear(self) -> None:
        if self.words:
            self.words.pop(self.draw.choice(sorted(self.words)))

    def hold(self) -> None:
        state, subject = self.world.ledger.state(), self.draw.choice(PEOPLE)
        begun = any(subject in state.people_of(r) for r in state.planned)
        if subject not in state.holds and not begun:
            self.world.tell(type="hold", state="set", subject=subject, id_rule=[])

    def release(self) -> None:
        held = sorted(self.world.ledger.state().holds)
        if held:
            self.world.tell(type="hold", state="released", subject=self.draw.choice(held))

    def lose_needles(self) -> None:
        """A restore of files from before the requests."""
        self.world.ports.needles.texts.clear()  # type: ignore[attr-defined]

    def run(self) -> None:
        names = iter(range(10_000))
        begun = len(self.world.ledger.events)
        eraser = Eraser(self.world.ports, POLICY, lambda: f"plan-{begun}-{next(names)}")
        for _ in range(ENOUGH):
            if eraser.run() is None:
                return
        raise AssertionError("expected the run to end")

    def run_killed(self) -> None:
        self.world.reaper.calls, self.world.reaper.at = 0, self.draw.randint(1, 90)
        self.run()

    def check_certified(self, event: dict[str, Any]) -> None:
        """Nothing of the person stands anywhere that was searched for."""
        request = event["request"]
        subject, _ = self.asked[request]
        state = self.world.ledger.state()
        for other in state.found_again:
            assert other == request or self.asked[other][0] != subject
        if request in self.there and not self._lost:
            mine = set(self._texts_of(request))
            assert mine.isdisjoint(self.words.values()), "certified while a text stands"

    def _texts_of(self, request: str) -> list[str]:
        subject, record = self.asked[request]
        records = (record,) if record else ("r0", "r1", "r2", "h0", "h1")
        return [f"text of {subject} in {r}" for r in records if (subject, r) in self.began]

    def watch(self, lost: bool) -> None:
        """Look at each certificate when the ledger takes it."""
        self._lost, self.began = lost, self.rows()
        self.untouched = self.rows()
        take: Callable[..., None] = self.world.ledger.take

        def taking(*told: Any) -> None:
            take(*told)
            for event in self.world.ledger.events[-len(told) :]:
                if event["type"] == "certified":
                    self.check_certified(event)

        self.world.ledger.take = taking  # type: ignore[method-assign]


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("seed", range(150))
def test_whatever_happens_everybody_is_certified_once_nothing_of_them_stands_anywhere(
    seed: int, lost: bool
) -> None:
    history = History(make_world(), random.Random(seed))  # a history, no secret
    history.watch(lost)
    acts = [history.ask, history.ask, history.ask_by_hash, history.leave, history.clear]
    acts += [history.run, history.run, history.run_killed, history.hold, history.release]
    acts += [history.lose_needles] if lost else []
    for _ in range(history.draw.randint(4, 14)):
        try:
            history.draw.choice(acts)()
        except (Killed, ResidueFound):
            pass
        finally:
            history.world.reaper.at = -1
        assert history.untouched <= history.rows()
    history.words.clear()
    for subject in sorted(history.world.ledger.state().holds):
        history.world.tell(type="hold", state="released", subject=subject)
    for _ in range(6):
        history.run()
    state = history.world.ledger.state()
    assert state.certified.keys() == history.asked.keys() and not state.set_aside
    needles: Any = history.world.ports.needles
    assert not needles.texts and not needles.files
