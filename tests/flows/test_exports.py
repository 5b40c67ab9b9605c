"""A checkpoint that is run elsewhere: what it is, and what becomes of it when people are erased."""

import base64
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from flows.adapters import exports
from flows.cli.app import app
from flows.cli.base import render_exports
from flows.prefect_flows.erase import erase
from flows.use_cases.documents import CheckpointDocument
from flows.use_cases.evidence import write_ledger
from flows.use_cases.exporting import export_champion, list_exports, verify_checkpoint
from flows.use_cases.reporting import write_report
from flows.use_cases.status import status_of
from flows.use_cases.taking import take_requests
from flows.use_cases.verifying import state_of_ledger, verify_path
from flows.workspace.workspace import Workspace
from s3t_core.errors import StorageError, UsageError
from tests.flows.conftest import CANARY
from tests.flows.prepared import Kept, keep_writer

pytestmark = [pytest.mark.slow, pytest.mark.minutes]


@pytest.fixture(scope="module")
def _kept(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Kept:
    return keep_writer(tmp_path_factory.mktemp("writing"))


@pytest.fixture
def place(_kept: Kept) -> Workspace:
    """A language model that was trained."""
    return _kept.fresh()


def _seen(place: Workspace, folder: Path) -> CheckpointDocument:
    return verify_checkpoint(folder, place.ledger.state())


def _standings(place: Workspace) -> dict[str, str]:
    return {e["export"]: e["standing"] for e in list_exports(place.ledger.state())}


def _predicate(path: Path) -> dict[str, Any]:
    told = json.loads(base64.b64decode(json.loads(path.read_text())["payload"]))
    predicate: dict[str, Any] = told["predicate"]
    return predicate


def test_an_erasure_destroys_what_it_reaches_and_names_the_rest(
    place: Workspace, tmp_path: Path
) -> None:
    """One is where it was put, one was moved, one is on the way to its place."""
    here, moved = (export_champion(place, tmp_path / name)["export"] for name in ("here", "moved"))
    shutil.move(tmp_path / "moved", tmp_path / "elsewhere")
    on_its_way = exports.beside(tmp_path / "moved", moved)
    on_its_way.mkdir()
    (on_its_way / "model.safetensors").write_bytes(b"half of it")
    (tmp_path / "here" / "mine.txt").write_text("the operator's")
    assert _seen(place, tmp_path / "elsewhere") == {
        "path": str(tmp_path / "elsewhere"),
        "export": moved,
        "release": place.ledger.state().exports[moved].release,
        "serves": True,
        "problems": [],
    }
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "here").config.num_hidden_layers == 2

    take_requests(place, [CANARY])
    found = erase(str(place.root))
    [certificate] = [Path(each["path"]) for each in found["certificates"]]
    assert found["stale_exports"] == [moved]
    assert _predicate(certificate)["exports"] == {"destroyed": [here], "stale": [moved]}
    assert verify_path(certificate, place.keys_dir / "signing.pub")["valid"]
    assert {p.name for p in (tmp_path / "here").iterdir()} == {exports.RECORD, "mine.txt"}
    assert not on_its_way.exists()
    assert _standings(place) == {here: "destroyed", moved: "stale"}
    told = status_of(place)["exports"]
    assert [(e["export"], e["standing"]) for e in told] == [(here, "destroyed"), (moved, "stale")]
    stale = _seen(place, tmp_path / "elsewhere")
    assert stale["export"] == moved and not stale["serves"] and "stale" in stale["problems"][0]
    assert "destroyed" in _seen(place, tmp_path / "here")["problems"][0]
    write_report(place, None, tmp_path / "report")
    entries = _predicate(tmp_path / "report" / "report.json")["exports"]
    assert [e["standing"] for e in entries] == ["destroyed", "stale"]
    assert "STALE" in (tmp_path / "report" / "report.html").read_text()

    again = export_champion(place, tmp_path / "again", [moved])
    assert again["replaced"] == [moved]
    assert _standings(place) == {here: "destroyed", moved: "replaced", again["export"]: "serves"}
    assert _seen(place, tmp_path / "again")["serves"]


def test_a_path_that_quotes_somebody_is_refused_and_one_in_the_ledger_stops_no_certificate(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of who comes into the data later, nobody could know: the certificate says that the id could
    not be searched for everywhere."""
    folder = tmp_path / CANARY / "model"
    before = place.ledger.events()
    with pytest.raises(UsageError, match="names nobody") as told:
        export_champion(place, folder)
    assert CANARY not in str(told.value)
    assert place.ledger.events() == before and not folder.exists()
    monkeypatch.setattr("flows.use_cases.exporting.check_quotes_nobody", lambda *_: None)
    folder.parent.mkdir()
    export_champion(place, folder)
    take_requests(place, [CANARY])
    found = erase(str(place.root))
    [certificate] = [Path(each["path"]) for each in found["certificates"]]
    assert not _predicate(certificate)["found"]["id_searched"]
    assert verify_path(certificate, place.keys_dir / "signing.pub")["valid"]


def test_an_auditor_tells_by_an_exported_ledger_which_checkpoint_it_is(
    place: Workspace, tmp_path: Path
) -> None:
    export = export_champion(place, tmp_path / "plain")["export"]
    write_ledger(place, tmp_path / "ledger.jsonl")
    public = place.keys_dir / "signing.pub"
    assert verify_path(tmp_path / "ledger.jsonl", public)["valid"]
    state = state_of_ledger(tmp_path / "ledger.jsonl", [public])
    assert verify_checkpoint(tmp_path / "plain", state)["export"] == export
    config = tmp_path / "plain" / "config.json"
    config.write_text(config.read_text().replace("}", ', "x": 1}', 1))
    (tmp_path / "plain" / "more.py").write_text("")
    told = verify_checkpoint(tmp_path / "plain", state)
    assert told["export"] == export and len(told["problems"]) == 2
    weights = tmp_path / "plain" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert not verify_checkpoint(tmp_path / "plain", state)["export"]


def test_the_command_tells_what_it_wrote_and_the_card_says_how_to_use_it(
    place: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The card's own lines are run; a second export says which one it replaces."""
    given = ["--workspace", str(place.root), "--json"]

    def told(*command: str) -> dict[str, Any]:
        with pytest.raises(SystemExit) as ended:
            app(["export", *command, *given])
        assert ended.value.code == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    first = told(str(tmp_path / "plain"))
    state = place.ledger.state()
    champion = state.champion
    assert champion is not None and champion.score is not None
    assert champion.score.otherwise is not None
    assert (first["release"], first["replaced"]) == (champion.release.release_id, [])
    card = (tmp_path / "plain" / "README.md").read_text()
    assert first["release"] in card and first["export"] in card
    assert f"perplexity {champion.score.otherwise.in_words()}" in card, "of the shards merged"
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(snippet, {"DIR": str(tmp_path / "plain")})  # noqa: S102
    assert capsys.readouterr().out.strip()
    second = told(str(tmp_path / "other"), "--replaces", first["export"])
    assert second["replaced"] == [first["export"]]
    assert _standings(place) == {first["export"]: "replaced", second["export"]: "serves"}
    with pytest.raises(UsageError, match="name exports"):
        app(["export", str(tmp_path / "third"), "--replaces", "export-of-nobody", *given])
    assert not (tmp_path / "third").exists()


def test_evidence_that_is_not_valid_hides_no_checkpoint_beside_it(
    place: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = export_champion(place, tmp_path / "plain")["export"]
    write_ledger(place, tmp_path / "ledger.jsonl")
    (tmp_path / "broken.json").write_text("{}")
    given = ["--workspace", str(place.root), "--key", str(place.keys_dir / "signing.pub"), "--json"]

    def told(*paths: str) -> dict[str, Any]:
        with pytest.raises(SystemExit) as ended:
            app(["verify", *(str(tmp_path / p) for p in paths), *given])
        assert ended.value.code == 1
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    beside = told("plain", "broken.json")
    assert not beside["valid"] and beside["problems"]
    assert [(e["export"], e["serves"]) for e in beside["exports"]] == [(export, True)]
    lines = (tmp_path / "ledger.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "ledger.jsonl").write_text("".join(lines[:-2] + lines[-1:]))
    [by_it] = told("plain", "ledger.jsonl")["exports"]
    assert not by_it["export"] and "not looked up" in by_it["problems"][0]


def test_a_new_export_takes_the_place_of_its_own_and_of_nothing_else(
    place: Workspace, tmp_path: Path
) -> None:
    first = export_champion(place, tmp_path / "plain")
    (tmp_path / "link").symlink_to(tmp_path)
    second = export_champion(place, tmp_path / "link" / "nowhere" / ".." / "plain")
    assert second["replaced"] == [first["export"]]
    assert sorted(p.name for p in tmp_path.iterdir() if first["export"] in p.name) == []
    weights = [each["files"]["model.safetensors"] for each in (first, second)]
    assert weights[0] == weights[1], "the same release, the same bytes"
    (tmp_path / "plain" / "thesis.txt").write_text("years of work")
    for folder in (tmp_path / "plain", place.root / "data" / "x", tmp_path / "no" / "where"):
        with pytest.raises(UsageError):
            export_champion(place, folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError):
        export_champion(place, tmp_path / "file")
    with pytest.raises(UsageError, match="--replaces"):
        export_champion(place, tmp_path / "other", ["export-of-nobody"])
    assert (tmp_path / "plain" / "thesis.txt").exists() and not (tmp_path / "other").exists()


@pytest.mark.long_but_first
@pytest.mark.parametrize("name", ["x" * 240, "ü" * 118])
def test_what_cannot_come_to_its_place_is_not_on_record(
    place: Workspace, tmp_path: Path, name: str
) -> None:
    """A name that leaves no room for the one by which it comes there."""
    before = place.ledger.state().exports
    with pytest.raises(StorageError, match="leaves room for 26 bytes"):
        export_champion(place, tmp_path / name)
    assert place.ledger.state().exports == before and not list(tmp_path.iterdir())
    done = export_champion(place, tmp_path / name[:100])
    assert [e["in_place"] for e in list_exports(place.ledger.state())][-1]
    assert done["directory"].endswith(name[:100])


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    ("at", "is_there", "standing"),
    [("put", False, "stale"), ("sync_directory", True, "destroyed")],
)
def test_killed_before_it_is_in_its_place_an_export_is_on_record_and_reached(
    place: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    is_there: bool,
    standing: str,
) -> None:
    """Whenever it is cut off, nothing of it is anywhere that the ledger does not know."""

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(exports, at, cut)
        with pytest.raises(KeyboardInterrupt):
            export_champion(place, tmp_path / "plain")
    (export,) = _standings(place)
    told = list_exports(place.ledger.state())
    assert told[0]["in_place"] is is_there
    assert ("it is not there" in render_exports(told)[0]) is not is_there
    assert not list((place.state_dir / "loading").glob("*"))
    take_requests(place, [CANARY])
    erase(str(place.root))
    assert _standings(place) == {export: standing}
    assert not list(tmp_path.rglob(f"*{export}*"))
    assert not (tmp_path / "plain" / "model.safetensors").exists()


def _hidden(place: Path) -> None:
    """Its weights lie elsewhere, and a link stands for them."""
    weights = place / "model.safetensors"
    weights.rename(place.parent / "weights")
    weights.symlink_to(place.parent / "weights")


def _linked(place: Path) -> None:
    """Its weights have a second name."""
    (place.parent / "weights").hardlink_to(place / "model.safetensors")


def _apart(place: Path) -> None:
    """Its weights lie elsewhere, all else is there."""
    (place / "model.safetensors").rename(place.parent / "weights")


def _elsewhere(place: Path) -> None:
    """It lies elsewhere, and another one in its place since."""
    place.rename(place.parent / "weights")


@pytest.mark.long_but_first
@pytest.mark.parametrize("done", [_hidden, _linked, _apart, _elsewhere])
def test_nobody_says_destroyed_of_weights_that_are_somewhere(
    place: Workspace, tmp_path: Path, done: Callable[[Path], None]
) -> None:
    (tmp_path / "of").mkdir()
    export = export_champion(place, tmp_path / "of" / "plain")["export"]
    done(tmp_path / "of" / "plain")
    if done is _elsewhere:
        assert export_champion(place, tmp_path / "of" / "plain")["replaced"] == []
    take_requests(place, [CANARY])
    found = erase(str(place.root))
    assert _standings(place)[export] == "stale" and found["stale_exports"] == [export]
    assert (tmp_path / "of" / "weights").exists(), "nobody's to remove but the operator's"
    take_requests(place, ["person-003"])
    [certificate] = [Path(each["path"]) for each in erase(str(place.root))["certificates"]]
    assert export in _predicate(certificate)["exports"]["stale"], "whoever is erased next"


def test_what_bears_an_exports_names_and_is_not_it_stays(place: Workspace, tmp_path: Path) -> None:
    """Another model in its directory, and a link by the name that it comes by."""
    export = export_champion(place, tmp_path / "plain")["export"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "model.safetensors").write_text("years of work")
    exports.beside(tmp_path / "plain", export).symlink_to(tmp_path / "thesis")
    (tmp_path / "plain" / "model.safetensors").write_bytes(b"another's")
    with pytest.raises(UsageError, match="nothing was changed"):
        export_champion(place, tmp_path / "plain")
    take_requests(place, [CANARY])
    erase(str(place.root))
    assert (tmp_path / "plain" / "model.safetensors").read_bytes() == b"another's"
    assert (tmp_path / "thesis" / "model.safetensors").exists()
    assert _standings(place) == {export: "stale"}


def test_nothing_is_exported_while_an_erasure_is_cut_off(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3t_core.erasure.executor import _ACTIONS

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    take_requests(place, [CANARY])
    with monkeypatch.context() as patched:
        patched.setitem(_ACTIONS, "cut over", cut)
        with pytest.raises(KeyboardInterrupt):
            erase(str(place.root))
    with pytest.raises(UsageError, match="erasure that was cut off"):
        export_champion(place, tmp_path / "plain")
    assert not (tmp_path / "plain").exists()
