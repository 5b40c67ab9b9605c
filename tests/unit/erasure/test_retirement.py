"""Which versions and stages nobody needs any more, for any history of a registry."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from s3t_core.domain import Release, Replica, StageRecord
from s3t_core.erasure.retirement import plan_retirement, versions_to_destroy
from s3t_core.erasure.state import State, VersionRecord
from s3t_core.times import rfc3339

NOW = datetime(2026, 11, 1, tzinfo=UTC)
DAYS = 30
STAGES = {f"k{i}": StageRecord(f"k{i}", f"d{i % 4}", 0, (0,), ("x",)) for i in range(6)}
"""Keys k0 and k4, k1 and k5 have the same bytes."""


@st.composite
def _states(draw: st.DrawFn) -> State:
    """Some versions, all but the last of them superseded at some time, some destroyed."""
    versions = []
    count = draw(st.integers(0, 5))
    for number in range(count):
        keys = draw(st.lists(st.sampled_from(sorted(STAGES)), unique=True, max_size=3))
        replica = Replica(0, 0, (0,), tuple(STAGES[k] for k in keys))
        old = NOW - timedelta(days=draw(st.sampled_from([0, DAYS - 1, DAYS + 1])))
        is_last = number == count - 1
        versions.append(
            VersionRecord(
                release=Release(f"r{number}", "v", (replica,)),
                version=str(number),
                run_id=f"run{number}",
                model_id="",
                cause="train",
                time=rfc3339(old),
                recipe={},
                staleness=0,
                superseded="" if is_last else rfc3339(old),
                destroyed=not is_last and draw(st.booleans()),
            )
        )
    state = State(versions=versions)
    state.stages.update(STAGES)
    return state


def _is_old(version: VersionRecord) -> bool:
    return version.superseded == rfc3339(NOW - timedelta(days=DAYS + 1))


@given(_states(), st.sets(st.sampled_from(sorted(STAGES))))
def test_a_training_retires_what_is_past_its_time_and_nothing_that_is_needed(
    state: State, wanted: set[str]
) -> None:
    goes = plan_retirement(state, wanted, NOW, DAYS)
    alive = [v for v in state.versions if not v.destroyed]
    assert set(goes.versions) == {v.version for v in alive if _is_old(v)}
    assert {v.version for v in goes.kept} == {v.version for v in alive} - set(goes.versions)
    if state.versions:
        assert state.versions[-1] in goes.kept  # it serves
    needed = wanted.union(*(v.release.stage_keys() for v in goes.kept))
    assert set(goes.stages) == STAGES.keys() - needed
    assert not goes.digests & {STAGES[k].digest for k in needed}  # the bytes of a stage that stays
    assert goes.digests <= {STAGES[k].digest for k in goes.stages}


@given(_states(), st.sets(st.sampled_from(sorted(STAGES))))
def test_an_erasure_destroys_every_version_with_a_tainted_stage_however_new(
    state: State, tainted: set[str]
) -> None:
    doomed = set(versions_to_destroy(state, tainted, NOW, DAYS))
    alive = [v for v in state.versions if not v.destroyed]
    assert doomed == {v.version for v in alive if v.release.stage_keys() & tainted or _is_old(v)}
