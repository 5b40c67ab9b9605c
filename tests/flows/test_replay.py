"""The short form of `make replay`: the same code on the tiny backbone, a few rows and two
requests."""

from pathlib import Path

import pytest

from benchmarks import replay
from tests.tiny import build_backbone


@pytest.mark.long
@pytest.mark.slow
def test_the_replay_measures_really_trained_models_and_counts_on_the_real_placement(
    tmp_path: Path,
) -> None:
    backbone = build_backbone(tmp_path / "backbone", layers=4)
    folder = tmp_path / "replay"
    folder.mkdir()
    arms = [replay.SISA_RETRAIN, replay.SISA]
    result = replay.run(folder, 2, 0.05, arms, str(backbone), streams=60)
    retrained, dropped = (result["arms"][a] for a in arms)
    assert (
        retrained["depths"] == [[4, 4]] * 3
        and retrained["visits"][-1] > dropped["visits"][-1] == 20
    )
    assert retrained["accuracy"][0] == dropped["accuracy"][0] and dropped["depths"][-1] != [4, 4]
    assert all(
        0 <= a <= 1 for arm in (retrained, dropped) for a in arm["accuracy"] if a is not None
    )
    counted = result["lasts"][replay.SISA]["all_shards_dead"]
    assert abs(counted["measured"]["mean"] - counted["simulated"]["mean"]) < 6
    again = replay.run(folder, 2, 0.05, arms, str(backbone), streams=60)
    assert again["arms"] == result["arms"]  # stages in the work directory are re-used
    many = result["arms"][replay.SISA]["many"]
    assert (
        many["accuracy"][0] == pytest.approx(dropped["accuracy"][0], abs=1e-4)
        and many["streams"] == 60
    )
    assert "| sisa with retraining |" in replay.table(result)
    replay.draw(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
