"""Who is found again after everything was destroyed waits for a certificate, and keeps nobody
else: the whole of it, on real parts."""

import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from flows.metrics import text_of
from flows.prefect_flows.erase import erase
from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.retrain import retrain
from flows.use_cases.reporting import report_of
from flows.use_cases.requests import hold, lift, withdraw
from flows.use_cases.status import status_of
from flows.use_cases.taking import take_hashed, take_requests
from flows.use_cases.verifying import verify_path
from flows.workspace.composing import erase_policy, erase_ports
from flows.workspace.workspace import Workspace
from s3t_core.erasure.executor import Eraser
from s3t_core.errors import RequestsLeftOpen, UsageError
from tests.flows.conftest import CANARY, CANARY_TEXT, people, write_csv
from tests.held import HELD

pytestmark = pytest.mark.slow
Make = Callable[..., Workspace]
WAITED = ("request uncertified", "erasure resumed")


def _left_open(place: Workspace) -> tuple[str, dict[str, Any]]:
    with pytest.raises(RequestsLeftOpen) as told:
        erase(str(place.root))
    return str(told.value), told.value.done


def _states(place: Workspace) -> dict[str, str]:
    return {r["id"]: r["state"] for r in status_of(Workspace(place.root))["pending"]}


@pytest.mark.long
def test_who_is_found_again_waits_and_everything_else_goes_on_until_it_is_gone(
    trained: Make, tmp_path: Path
) -> None:
    place = trained(canary=True)
    (hers,) = take_requests(place, [CANARY])
    (his,) = take_requests(place, ["person-003"])
    leak = place.state_dir / "a.log"
    leak.write_text(f"debug: training on {CANARY_TEXT} 1")
    told, done = _left_open(place)
    assert "a.log" in told and hers.request_id in told and CANARY not in told
    assert [c["request"] for c in done["certificates"]] == [his.request_id]
    assert [(w["request"], w["state"]) for w in done["waiting"]] == [
        (hers.request_id, "uncertified")
    ]
    assert _states(place) == {hers.request_id: "uncertified"}
    assert 's3t_requests{state="uncertified"} 1' in text_of(Workspace(place.root))
    needles = "".join(p.read_text() for p in place.needles.folder.glob("plan-*.json"))
    assert CANARY_TEXT[:40] in needles and "person-003" not in needles
    with pytest.raises(UsageError, match="has begun"):
        withdraw(Workspace(place.root), hers.request_id)
    with pytest.raises(UsageError, match="no open request"):
        lift(Workspace(place.root), CANARY, "", "clerk")
    assert hold(Workspace(place.root), CANARY, "17(3)(e)", "claims are open", "counsel") == 0
    assert _states(place) == {hers.request_id: "uncertified"}
    (again,) = take_requests(Workspace(place.root), [CANARY])
    assert again.request_id == hers.request_id

    # meanwhile: her rows stay out, a full retrain, another request
    source = write_csv(tmp_path / "people.csv", people(canary=True))
    ingest(str(place.root), str(source))
    source.unlink()
    dataset = Workspace(place.root).ledger.state().dataset
    assert dataset is not None and dataset.rows() + dataset.held_out.rows == 36 - 2
    retrain(str(place.root))
    (third,) = take_requests(Workspace(place.root), ["person-005"])
    told, done = _left_open(place)
    assert [c["request"] for c in done["certificates"]] == [third.request_id]

    leak.unlink()
    done = erase(str(place.root))
    assert [(c["request"], c["outcome"]) for c in done["certificates"]] == [
        (hers.request_id, "erased")
    ]
    assert _states(place) == {} and not list(place.needles.folder.iterdir())
    place = Workspace(place.root)
    assert len(list(place.certificates_dir.glob("*.json"))) == 3
    assert verify_path(place.certificates_dir, place.keys_dir / "signing.pub")["valid"]
    report = report_of(place, None, place.clock.now())
    acts = [a.kind for a in report.acts]
    assert [a for a in acts if a in WAITED] == list(WAITED)
    assert [e.requests for e in report.erasures] == [1, 1, 1]
    assert [bool(e.data_objects_destroyed) for e in report.erasures] == [True, True, False]
    assert not [p for p in place.root.rglob("*") if p.is_file() and _says(p)]


def _says(path: Path) -> bool:
    return CANARY_TEXT[:40].encode() in path.read_bytes()


@pytest.mark.long
def test_a_restore_does_not_bring_back_the_rows_of_who_waits_for_a_certificate(
    trained: Make, tmp_path: Path
) -> None:
    """Files of before the erasure, under a ledger that has it."""
    place = trained(canary=True)
    shutil.copytree(place.root, tmp_path / "backup", symlinks=True)
    take_requests(place, [CANARY])
    leak = place.state_dir / "a.log"
    leak.write_text(CANARY)
    _left_open(place)
    for name in ("data", "data.dvc", ".dvc/cache", ".s3t/stages", ".s3t/remote"):
        kept, there = tmp_path / "backup" / name, place.root / name
        if not kept.exists():
            continue
        shutil.rmtree(there) if there.is_dir() else there.unlink()
        shutil.copytree(kept, there, symlinks=True) if kept.is_dir() else shutil.copy2(kept, there)
    leak.unlink()
    done = erase(str(place.root))
    assert len(done["certificates"]) == 1 and done["healed"]["data"]
    assert not [p for p in place.root.rglob("*.parquet") if _says(p)]


@pytest.mark.long_but_first
@pytest.mark.parametrize("later", ["the whole person", "one record", "by a hash"])
def test_no_certificate_is_given_to_whom_another_request_is_found_of(
    trained: Make, later: str
) -> None:
    """By record, id or hash: it is one person, and the text stands there."""
    place = trained(canary=True)
    first = "" if later != "the whole person" else "c0"
    (hers,) = take_requests(place, [CANARY], record=first)
    leak = place.state_dir / "a.log"
    leak.write_text(f"{CANARY_TEXT} 0")
    _left_open(place)
    place = Workspace(place.root)
    if later == "by a hash":
        (again,) = take_hashed(place, [f"sha256:{sha256(CANARY.encode()).hexdigest()}"])
    else:
        (again,) = take_requests(place, [CANARY], record="c1" if later == "one record" else "")
    (other,) = take_requests(place, ["person-003"])
    told, done = _left_open(place)
    assert [c["request"] for c in done["certificates"]] == [other.request_id]
    assert again.request_id in told and set(_states(place)) == {hers.request_id, again.request_id}
    waits = "pending" if later == "by a hash" else "uncertified"
    assert _states(place)[again.request_id] == waits
    leak.unlink()
    done = erase(str(place.root))
    assert {c["request"] for c in done["certificates"]} == {hers.request_id, again.request_id}
    assert not list(Workspace(place.root).needles.folder.iterdir())


def test_two_records_of_one_person_wait_together_and_lock_nobody(trained: Make) -> None:
    """In one erasure, with a text each, of which one is found."""
    place = trained(canary=True)
    (first,) = take_requests(place, [CANARY], record="c0")
    (second,) = take_requests(place, [CANARY], record="c1")
    leak = place.state_dir / "a.log"
    leak.write_text(f"{CANARY_TEXT} 0")
    _left_open(place)
    assert set(_states(place)) == {first.request_id, second.request_id}
    (other,) = take_requests(Workspace(place.root), ["person-003"])
    _, done = _left_open(place)
    assert [c["request"] for c in done["certificates"]] == [other.request_id]
    leak.unlink()
    done = erase(str(place.root))
    assert [c["outcome"] for c in done["certificates"]] == ["erased", "erased"]
    place = Workspace(place.root)
    assert verify_path(place.certificates_dir, place.keys_dir / "signing.pub")["valid"]


@pytest.mark.long
def test_a_document_that_a_cut_off_run_signed_before_is_not_taken_for_the_certificate(
    trained: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore puts it back: its search is another than the one that found nothing."""
    place = trained(canary=True)
    (hers,) = take_requests(place, [CANARY])
    with monkeypatch.context() as patch:
        patch.setattr(type(place.requests), "close", _killed)
        with pytest.raises(KeyboardInterrupt):
            _eraser(place).run()
    signed = place.certificates.path_of(hers.request_id)
    older = signed.read_bytes()
    leak = place.state_dir / "a.log"
    leak.write_text(CANARY)
    _left_open(place)
    assert not signed.exists()
    signed.write_bytes(older)
    leak.unlink()
    assert len(erase(str(place.root))["certificates"]) == 1
    assert signed.read_bytes() != older


def _killed(*_: Any) -> None:
    raise KeyboardInterrupt


def _eraser(place: Workspace) -> Eraser:
    return Eraser(erase_ports(place, HELD), erase_policy(place), lambda: "plan-1")
