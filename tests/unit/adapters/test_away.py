"""Leases of places where Dask workers may have left rows: nothing is certified while one of
destroyed data is left."""

from pathlib import Path

import pytest

from flows.adapters.away import AwayFiles, Looked
from s3t_core.errors import ResidueFound, TrainingError

ERASED, LIVE = "a" * 64, "b" * 64


class Workers:
    """Answers as workers would, one list for each time that they are asked; the last one stays."""

    def __init__(self, *answers: list[Looked]) -> None:
        self.answers = list(answers)

    def look(self) -> list[Looked]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def looked(place: str, *jobs: str) -> Looked:
    return Looked(place, frozenset(jobs))


@pytest.fixture
def away(tmp_path: Path) -> AwayFiles:
    return AwayFiles(tmp_path / "away")


def leased(tmp_path: Path) -> list[str]:
    return sorted(p.stem for p in (tmp_path / "away").glob("*"))


def test_a_machine_that_never_came_back_stops_the_certificate(away: AwayFiles) -> None:
    lease = away.begin([ERASED, LIVE], {"p": "10.0.0.5", "q": "10.0.0.6"})
    with pytest.raises(
        ResidueFound, match=rf"1 job.*10\.0\.0\.5;.*same TMPDIR.*\.s3t/away/{lease.job}\.json"
    ):
        away.check([LIVE], lambda: Workers([looked("q")]), 0)
    with pytest.raises(ResidueFound):
        away.check([LIVE], lambda: Workers([looked("q")]), 0)


def test_what_a_worker_looked_after_needs_no_lease(away: AwayFiles, tmp_path: Path) -> None:
    away.begin([ERASED], {"p": "10.0.0.5", "q": "10.0.0.6"})
    away.check([LIVE], lambda: Workers([looked("p"), looked("q"), looked("q", "another")]), 0)
    assert leased(tmp_path) == []


def test_a_job_that_still_works_on_destroyed_rows_is_waited_for(
    away: AwayFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.adapters.away._LOOK_SECONDS", 0)
    job = away.begin([ERASED], {"p": "10.0.0.5"}).job
    with pytest.raises(ResidueFound, match="still working"):
        away.check([LIVE], lambda: Workers([looked("p", job), looked("p")]), -1)
    ends = Workers([looked("p", job), looked("p")], [looked("p")])
    away.check([LIVE], lambda: ends, 60)
    assert leased(tmp_path) == []


def test_one_of_two_workers_of_a_place_does_not_hide_the_others_job(away: AwayFiles) -> None:
    lease = away.begin([ERASED], {"p": "10.0.0.5"})
    assert away.settle(lease, [looked("p", lease.job), looked("p")]).places == lease.places


def test_a_lease_of_live_rows_asks_nobody(away: AwayFiles, tmp_path: Path) -> None:
    lease = away.begin([LIVE], {"p": "10.0.0.5"})
    away.check([LIVE], Workers, 0)
    assert leased(tmp_path) == [lease.job]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{}",
        b'{"files": ["%s"], "job": "x", "places": {}}' % LIVE.encode(),
        b'{"files": null, "job": "damaged", "places": {}}',
    ],
)
def test_a_lease_that_cannot_be_read_stops_the_certificate(
    away: AwayFiles, tmp_path: Path, said: bytes
) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "damaged.json").write_bytes(said)
    with pytest.raises(ResidueFound, match=r"damaged\.json"):
        away.check([LIVE], lambda: Workers([looked("p")]), 0)


def test_without_a_cluster_a_lease_stops_the_certificate(away: AwayFiles) -> None:
    away.begin([ERASED], {"p": "10.0.0.5"})

    def lost() -> Workers:
        raise TrainingError("the Dask cluster was lost")

    with pytest.raises(ResidueFound, match="names no cluster"):
        away.check([LIVE], lambda: None, 0)
    with pytest.raises(ResidueFound, match="was lost"):
        away.check([LIVE], lost, 0)


def test_a_place_comes_on_the_lease_before_a_job_begins_there(away: AwayFiles) -> None:
    lease = away.begin([ERASED], {})
    assert away.beyond([LIVE])[0].places == {}
    wide = away.widen(lease, {"p": "10.0.0.5"})
    assert away.beyond([LIVE]) == [wide] and wide.places == {"p": "10.0.0.5"}
