"""The promises of the ports that look at data: `Datasets`, `Residue`; and of `Budget` and `Clock`.
Where a row was placed is no part of them."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

import pytest

from flows.adapters.clock import SystemClock
from flows.use_cases.ingesting import ingest_source
from flows.workspace import access
from flows.workspace.composing import erase_ports
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.domain import HELD_OUT, DatasetVersion, SliceId
from s3t_core.erasure import events
from s3t_core.erasure.state import State
from s3t_core.ports import Budget, Clock, Datasets, Residue, Target
from s3t_core.records import record_digest, subject_digest
from tests.fakes import FakeBudget, FakeClock, FakeDatasets, FakeResidue
from tests.flows.conftest import tiny_config, write_csv

ANN, NOBODY = "ann-of-the-harbour-4711", "nobody-of-the-hill-4712"
OTHERS = [f"person-of-the-street-{n:04d}" for n in range(20)]
ROWS = 3
"""Of everybody."""
KEY = b"\x07" * 32


@dataclass
class World:
    """Everybody's rows in the one version of the data. `target` names a person, or a record of
    theirs by its number; `lose` takes an object away behind the port's back; `write` has a word
    stand in a file of the system, `refuse` a row of Ann's in quarantine; `record` tells the ledger
    of a version."""

    datasets: Datasets
    residue: Residue
    budget: Budget
    version: DatasetVersion
    target: Callable[..., Target]
    lose: Callable[[str], None]
    write: Callable[[str], None]
    refuse: Callable[[], None]
    record: Callable[[DatasetVersion], None]


def _guard(_: str) -> None: ...


def _fake() -> World:
    rows: dict[SliceId | None, list[tuple[str, str]]] = {
        SliceId(s, i): [] for s in range(2) for i in range(2)
    }
    rows[HELD_OUT] = []
    parts = list(rows)
    for number, who in enumerate((ANN, *OTHERS)):
        rows[parts[number % len(parts)]] += [(who, f"{who}-{n}") for n in range(ROWS)]
    datasets = FakeDatasets(rows, 2, 2, _guard)
    residue = FakeResidue(datasets, _guard)

    def target(who: str, number: int | None = None) -> Target:
        return Target("req-1", who, "" if number is None else f"{who}-{number}")

    return World(
        datasets,
        residue,
        FakeBudget(),
        datasets.version(),
        target,
        lose=lambda md5: datasets.objects.pop(md5) and None,
        write=lambda word: residue.words.update(file=word),
        refuse=lambda: datasets.quarantine.append((ANN, "")),
        record=lambda _: None,
    )


def _source(folder: Path, refused: bool = False) -> str:
    rows = [
        {
            "id": f"{who}-{n}",
            "who": who,
            "what": f"what {who} said for the {n}th time in words of their own",
            "kind": ["good", "bad"][n % 2],
        }
        for who in (ANN, *OTHERS)
        for n in range(ROWS)
    ]
    rows += [{**rows[0], "id": "refused", "kind": "ugly"}] if refused else []
    return str(write_csv(folder / "people.csv", rows))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be copied."""
    folder = tmp_path_factory.mktemp("made")
    place = create_workspace(folder / "w", tiny_config(folder / "no backbone"), KEY)
    with access.changing(place) as held:
        ingest_source(Workspace(place.root), held, _source(folder), False, 20_000)
        erase_ports(Workspace(place.root), held)  # makes MLflow's database, which takes seconds
    return place.root


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path, made: Path) -> Iterator[World]:
    if request.param == "fake":
        yield _fake()
        return
    shutil.copytree(made, tmp_path / "w", symlinks=True)
    place = Workspace(tmp_path / "w")
    version = place.ledger.state().dataset
    assert version is not None
    keys = place.keys

    def target(who: str, number: int | None = None) -> Target:
        record = "" if number is None else record_digest(keys, who, f"{who}-{number}")
        return Target("req-1", subject_digest(keys, who), record)

    with access.changing(place) as held:
        ports = erase_ports(place, held)

        def lose(md5: str) -> None:
            for path in place.root.rglob(md5[2:]):  # in cache and remote
                path.unlink()

        def record(version: DatasetVersion) -> None:
            told = events.DatasetChanged(time=place.now(), cause="ingest", dataset=version)
            ports.ledger.append(told)

        def write(word: str) -> None:
            (place.state_dir / "dvc-site" / "note.txt").write_text(word)

        def refuse() -> None:
            ingest_source(place, held, _source(tmp_path, refused=True), False, 20_000)

        yield World(
            ports.datasets,
            ports.residue,
            ports.budget,
            version,
            target,
            lose,
            write=write,
            refuse=refuse,
            record=record,
        )


# --- Datasets


def test_rows_of_a_person_are_found_with_their_files_and_of_nobody_none(world: World) -> None:
    found = world.datasets.find([world.target(ANN)], [world.version], set())
    rows = found.rows["req-1"]
    assert rows.training + rows.held_out == ROWS
    assert bool(found.slices) == bool(rows.training) and found.held_out == bool(rows.held_out)
    holding = {part for part in world.version.parts() if part in found.slices} | (
        {HELD_OUT} if found.held_out else set()
    )
    files = [world.version.parts()[part] for part in holding]
    assert found.tainted == {file.digest for file in files}
    assert found.objects >= {file.md5 for file in files}
    none = world.datasets.find([world.target(NOBODY)], [world.version], set())
    assert not none.tainted and not none.slices and not none.held_out
    assert (none.rows["req-1"].training, none.rows["req-1"].held_out) == (0, 0)


def test_one_record_is_found_by_itself(world: World) -> None:
    rows = world.datasets.find([world.target(ANN, 1)], [world.version], set()).rows["req-1"]
    assert rows.training + rows.held_out == 1


def test_what_cannot_be_read_any_more_may_hold_anybody(world: World) -> None:
    erased = world.datasets.erase([world.target(OTHERS[0])], [world.version], set())
    history = [world.version, erased]
    parts = world.version.parts().items()
    gone = next(file for part, file in parts if file != erased.parts()[part])
    world.lose(gone.md5)
    who = [world.target(NOBODY)]
    assert gone.digest in world.datasets.find(who, history, set()).tainted
    assert gone.digest not in world.datasets.find(who, history, {gone.md5}).tainted


def test_what_targeted_rows_say_is_told_with_a_commitment_a_row(world: World) -> None:
    told = world.datasets.contents([world.target(ANN)])
    assert len(set(told.texts["req-1"])) == len(set(told.commitments["req-1"])) == ROWS
    assert len(world.datasets.contents([world.target(ANN, 1)]).commitments["req-1"]) == 1
    assert not any(world.datasets.contents([world.target(NOBODY)]).texts.values())


def test_a_version_without_targeted_rows_leaves_the_other_files_alone(world: World) -> None:
    targets = [world.target(ANN)]
    where = world.datasets.find(targets, [world.version], set())
    after = world.datasets.erase(targets, [world.version], set())
    before = world.version
    changed = {part for part, file in after.parts().items() if file != before.parts()[part]}
    assert changed == where.slices | ({HELD_OUT} if where.held_out else set())
    rows = [sum(f.rows for f in version.parts().values()) for version in (before, after)]
    assert rows[1] == rows[0] - ROWS
    assert world.datasets.erase(targets, [before], set()) == after, "once more, the same"
    left = world.datasets.find(targets, [after], set()).rows["req-1"]
    assert (left.training, left.held_out) == (0, 0)


def test_nothing_changes_for_somebody_of_whom_there_are_no_rows(world: World) -> None:
    assert world.datasets.erase([world.target(NOBODY)], [world.version], set()) == world.version


def test_objects_are_destroyed_for_good_unless_the_live_version_needs_them(world: World) -> None:
    targets = [world.target(ANN)]
    found = world.datasets.find(targets, [world.version], set())
    after = world.datasets.erase(targets, [world.version], set())
    needed = {file.md5 for file in after.files()}
    for _ in range(2):
        gone = world.datasets.destroy([*found.objects, *needed], targets, after)
        assert set(gone) >= found.objects - needed and not set(gone) & needed
    again = world.datasets.find([world.target(OTHERS[0])], [after], set())
    assert again.rows["req-1"].training + again.rows["req-1"].held_out == ROWS


def test_of_refused_rows_a_persons_are_dropped_and_counted(world: World) -> None:
    world.refuse()
    assert world.datasets.erase_quarantine([world.target(NOBODY)]) == 0
    assert world.datasets.erase_quarantine([world.target(ANN)]) == 1
    assert world.datasets.erase_quarantine([world.target(ANN)]) == 0


# --- Residue


def test_rows_are_residue_until_the_objects_that_have_them_are_destroyed(world: World) -> None:
    targets = [world.target(ANN)]
    assert world.residue.scan([], [], targets).rows_found
    found = world.datasets.find(targets, [world.version], set())
    after = world.datasets.erase(targets, [world.version], set())
    world.record(after)
    world.datasets.destroy(found.objects, targets, after)
    assert not world.residue.scan([], [], targets).rows_found
    assert world.residue.scan([], [], [world.target(OTHERS[0])]).rows_found


def test_a_word_in_a_file_is_residue_and_told_of_until_it_goes(world: World) -> None:
    assert not world.residue.scan([NOBODY], [], []).residue
    world.write(NOBODY)
    first = world.residue.scan([NOBODY], [], [])
    assert first.residue and NOBODY.encode() in first.needles_found and not first.rows_found
    assert NOBODY not in str(first), "a report names nobody"
    assert world.residue.scan([], [], [], first.residue_digests).found_again
    world.write("nothing of anybody")
    assert not world.residue.scan([NOBODY], [], []).residue
    assert not world.residue.scan([], [], [], first.residue_digests).found_again


def test_places_that_keep_nothing_pass(world: World) -> None:
    world.residue.check()


# --- Budget, Clock


def test_without_a_release_there_is_no_budget(world: World) -> None:
    assert world.budget.document(State()) is None
    assert all(isinstance(value, str) for value in world.budget.tags(State()).values())


@pytest.mark.parametrize("clock", [FakeClock(), SystemClock()])
def test_a_clock_tells_utc_and_goes_on_at_least_as_long_as_it_sleeps(clock: Clock) -> None:
    before = clock.now()
    clock.sleep(0.02)
    after = clock.now()
    assert before.tzinfo is UTC and (after - before).total_seconds() >= 0.02
