"""A model in service over an erasure: who asked for the alias gets the version of now, checked as
when it is first loaded; who asked for a number is refused for good; MLflow's own server says so in
its health (edges G10, G11)."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest

from flows.adapters.served_model import Serving
from flows.use_cases.predicting import champion_of
from flows.workspace.workspace import Workspace
from s3t_core.canonical import canonical_json, sha256_hex
from s3t_core.errors import DataError, StaleModel
from tests.flows.prepared import Prepared, forget_connections
from tests.flows.test_cli import S3T, environment

pytestmark = pytest.mark.slow
TEXTS = ["w1 w2", "w3"]
ALIAS = "models:/tiny@champion"


def _own_directories() -> list[str]:
    return [p.name for p in Path(tempfile.gettempdir()).glob("s3t-champion-*")]


def _erased(prepared: Prepared) -> Workspace:
    assert prepared.erase()["error"] == ""
    forget_connections()
    return Workspace(prepared.root)


def _files_of_champion(place: Workspace) -> Path:
    champion = place.ledger.state().champion
    assert champion is not None
    return place.state_dir / "mlartifacts" / "models" / champion.model_id / "artifacts"


def _by(place: Workspace, how: str) -> Any:
    mlflow.set_tracking_uri(place.tracking_uri)
    mlflow.set_registry_uri(place.tracking_uri)  # else that of the test before
    champion = place.ledger.state().champion
    assert champion is not None
    uri = {
        "number": f"models:/tiny/{champion.version}",
        "id": f"models:/{champion.model_id}",
        "run": f"runs:/{champion.run_id}/release",
    }.get(how, ALIAS)
    return mlflow.pyfunc.load_model(uri, model_config={"pinned": True} if how == "pinned" else None)


@pytest.mark.long_but_first
@pytest.mark.parametrize("which", ["tracking", "registry"])
def test_a_loaded_model_answers_for_the_registry_that_it_came_from(
    prepared: Prepared, tmp_path: Path, which: str
) -> None:
    """Two workspaces may call their models the same: with the other's address set, it would follow
    the other's alias."""
    place = prepared.fresh()
    model = _by(place, "alias")
    before = model.predict(["w1 w2"])
    other = f"sqlite:///{tmp_path / 'other.db'}"
    tell = mlflow.set_tracking_uri if which == "tracking" else mlflow.set_registry_uri
    tell(other)
    with pytest.raises(StaleModel, match="those that this model was loaded from"):
        model.predict(["w1 w2"])
    tell(place.tracking_uri)
    assert model.predict(["w1 w2"]) == before


def test_who_asked_for_the_alias_gets_the_version_of_now_who_asked_for_one_is_refused_for_good(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = prepared.fresh()
    before = champion_of(place).predict(TEXTS)
    follows, held = (
        _by(place, "alias"),
        {h: _by(place, h) for h in ("number", "id", "run", "pinned")},
    )
    assert follows.predict(TEXTS) == before and all(
        m.predict(TEXTS) == before for m in held.values()
    )
    old = place.registry.serving()
    place = _erased(prepared)
    assert place.registry.serving() != old
    now = champion_of(place).predict(TEXTS)
    assert follows.predict(TEXTS) == now != before
    assert _own_directories() == []
    for model in held.values():
        with pytest.raises(StaleModel, match="moved on"):
            model.predict(TEXTS)
    current = place.registry.serving()
    champion = place.ledger.state().champion
    assert champion is not None
    place.registry.connection.client.create_model_version(
        "tiny", f"models:/{champion.model_id}", tags={"s3t.release": "another"}
    )
    place.registry.serve(str(int(current) + 1))
    with pytest.raises(StaleModel, match="vouches for"):
        follows.predict(TEXTS)
    place.registry.serve(current)
    assert follows.predict(TEXTS) == now  # the next question tries again
    asked: list[str] = []
    monkeypatch.setattr(Serving, "_named", lambda _: asked.append("again"))
    for model in held.values():
        with pytest.raises(StaleModel, match="moved on"):
            model.predict(TEXTS)
    assert asked == []  # whatever the alias names by then


@pytest.mark.parametrize("how", ["alias", pytest.param("number", marks=pytest.mark.long)])
def test_a_model_asks_the_registry_that_lies_there_by_now(prepared: Prepared, how: str) -> None:
    """MLflow keeps the file open that lay there when the model was loaded: in that one, the version
    of before serves for good."""
    place = prepared.fresh()
    model, file = _by(place, how), place.state_dir / "mlflow.db"
    before = model.predict(TEXTS)
    aside = file.rename(file.with_name("aside.db"))
    with pytest.raises(StaleModel, match="the registry to confirm"):
        model.predict(TEXTS)
    assert not file.exists()  # or it would be an empty one
    shutil.copyfile(aside, file)
    aside.unlink()
    assert prepared.erase()["error"] == ""
    place = Workspace(prepared.root)
    now = champion_of(place).predict(TEXTS)
    if how == "alias":
        assert model.predict(TEXTS) == now != before
        return
    with pytest.raises(StaleModel, match="moved on"):
        model.predict(TEXTS)


def _labels_reversed(folder: Path) -> None:
    path = next(folder.rglob("release.json"))
    document = json.loads(path.read_bytes())
    document["recipe"]["labels"].reverse()
    path.write_bytes(canonical_json(document))


def _trusting(folder: Path) -> None:
    path = next(folder.rglob("release.json"))
    document = json.loads(path.read_bytes())
    document["serving"]["staleness_seconds"] = 10**9
    path.write_bytes(canonical_json(document))


def _another_weight(folder: Path) -> None:
    path = next(folder.rglob("*.safetensors"))
    data = path.read_bytes()
    path.unlink()  # its bytes have another name in the store
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def _no_weight(folder: Path) -> None:
    next(folder.rglob("*.safetensors")).unlink()


@pytest.mark.long_but_first
@pytest.mark.parametrize("change", [_labels_reversed, _trusting, _another_weight, _no_weight])
def test_what_is_fetched_is_checked_as_when_a_model_is_first_loaded(
    prepared: Prepared, change: Any
) -> None:
    place = prepared.fresh()
    model = _by(place, "alias")
    place = _erased(prepared)
    whole = shutil.copytree(
        _files_of_champion(place), place.root.parent / "whole", dirs_exist_ok=True
    )
    change(_files_of_champion(place))
    for _ in range(2):
        with pytest.raises(StaleModel):
            model.predict(TEXTS)
        assert _own_directories() == []
    with pytest.raises(Exception, match="expected"):
        _by(place, "alias")
    shutil.copytree(whole, _files_of_champion(place), dirs_exist_ok=True)
    shutil.rmtree(whole)
    assert model.predict(TEXTS) == champion_of(place).predict(
        TEXTS
    )  # the next question tries again


def test_a_document_that_names_another_model_or_release_is_not_believed_though_vouched_for(
    prepared: Prepared,
) -> None:
    place = prepared.fresh()
    model = _by(place, "alias")
    place = _erased(prepared)
    path = next(_files_of_champion(place).rglob("release.json"))
    kept = json.loads(path.read_bytes())
    for section, key in (("serving", "name"), ("release", "id")):
        forged = json.loads(json.dumps(kept))
        forged[section][key] = "another"
        path.write_bytes(canonical_json(forged))
        place.registry.tag(
            place.registry.serving(), {"s3t.document": sha256_hex(path.read_bytes())}
        )
        with pytest.raises(StaleModel, match="got another"):
            model.predict(TEXTS)


@pytest.mark.long
def test_no_code_of_a_fetched_version_is_run(prepared: Prepared) -> None:
    place = prepared.fresh()
    model = _by(place, "alias")
    place = _erased(prepared)
    right = champion_of(place).predict(TEXTS)
    code = next(_files_of_champion(place).rglob("champion.py"))
    code.write_text("raise SystemExit('this code was run')\n")
    assert model.predict(TEXTS) == right


@pytest.mark.long
def test_threads_that_ask_while_the_release_changes_get_the_old_answer_before_and_the_new_one_after(
    prepared: Prepared,
) -> None:
    place = prepared.fresh()
    before = champion_of(place).predict(TEXTS)
    model, answers, stop = _by(place, "alias"), list[Any](), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            began = time.monotonic()
            try:
                answers.append((began, model.predict(TEXTS)))
            except StaleModel as error:
                answers.append((began, str(error)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    place = _erased(prepared)
    after = time.monotonic()
    now = champion_of(place).predict(TEXTS)
    time.sleep(3)
    stop.set()
    for thread in threads:
        thread.join()
    told = [a for _, a in answers]
    assert before in told and now in told
    assert all(a in (before, now) or isinstance(a, str) for a in told), (
        "an answer of two releases at once"
    )
    assert all(a == now for began, a in answers if began > after + 2)
    assert _own_directories() == []


@contextmanager
def _served(place: Workspace, uri: str, *more: str) -> Iterator[tuple[str, Path]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    binaries = Path(S3T).parent
    log = place.root.parent / f"served-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                str(binaries / "mlflow"),
                "models",
                "serve",
                "--env-manager",
                "local",
                "-m",
                uri,
                "-p",
                str(port),
                *more,
            ],
            env={
                **environment(),
                "MLFLOW_TRACKING_URI": place.tracking_uri,
                "HF_HUB_OFFLINE": "1",
                "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            },
            cwd=place.root.parent,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 240
        while _get(f"http://127.0.0.1:{port}/ping")[0] != 200:
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}", log
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)


def _get(url: str) -> tuple[int, str]:
    return _asked(urllib.request.Request(url))  # noqa: S310


def _post(url: str, asked: Any, kind: str = "application/json") -> tuple[int, str]:
    data = (asked if isinstance(asked, str) else json.dumps(asked)).encode()
    return _asked(urllib.request.Request(f"{url}/invocations", data, {"Content-Type": kind}))  # noqa: S310


def _asked(request: urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def _labels(told: str) -> list[str]:
    return [p["label"] for p in json.loads(told)["predictions"]]


PAYLOADS = [
    (
        {"dataframe_split": {"columns": ["id", "what"], "data": [["r1", t] for t in TEXTS]}},
        "application/json",
    ),
    (
        {"dataframe_records": [{"id": "r1", "what": TEXTS[0]}, {"id": "r2", "what": TEXTS[1]}]},
        "application/json",
    ),
    ({"instances": TEXTS}, "application/json"),
    ({"instances": [[t] for t in TEXTS]}, "application/json"),
    ({"instances": [{"id": "r1", "what": t} for t in TEXTS]}, "application/json"),
    ({"inputs": TEXTS}, "application/json"),
    ({"inputs": [[t] for t in TEXTS]}, "application/json"),
    ({"inputs": {"id": ["r1", "r2"], "what": TEXTS}}, "application/json"),
    ({"inputs": [{"id": "r1", "what": t} for t in TEXTS]}, "application/json"),
    (f"id,what\nr1,{TEXTS[0]}\nr2,{TEXTS[1]}\n", "text/csv"),
    (f"x\n{TEXTS[0]}\n{TEXTS[1]}\n", "text/csv"),
]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_mlflows_server_goes_on_over_an_erasure_takes_every_payload_and_says_when_it_is_ill(
    prepared: Prepared,
) -> None:
    place = prepared.fresh()
    with _served(place, ALIAS) as (follows, _), _served(place, "models:/tiny/1") as (held, log):
        first = {
            url: json.loads(_post(url, {"inputs": TEXTS})[1])["predictions"]
            for url in (follows, held)
        }
        assert first[follows] == first[held] == champion_of(place).predict(TEXTS)
        for asked, kind in PAYLOADS:
            status, told = _post(follows, asked, kind)
            assert (status, _labels(told)) == (200, [p["label"] for p in first[follows]]), (
                asked,
                told,
            )
        for nothing in (
            {"inputs": []},
            {"instances": []},
            {"dataframe_records": []},
            {"dataframe_split": {"columns": ["what"], "data": []}},
        ):
            assert _post(follows, nothing) == (200, '{"predictions": []}')
        assert _labels(_post(follows, {"inputs": TEXTS[0]})[1]) == [first[follows][0]["label"]]
        for wrong, kind in (
            ({"inputs": ["a secret", None]}, "application/json"),
            ("id,x\nr1,a secret\n", "text/csv"),
            (
                {"dataframe_split": {"columns": ["a", "b"], "data": [["a secret", "r1"]]}},
                "application/json",
            ),
        ):
            status, told = _post(follows, wrong, kind)
            assert (
                status == 400
                and json.loads(told)["message"].startswith("expected ")
                and "a secret" not in told
            )
        assert [
            _get(f"{url}/{path}")[0] for url in (follows, held) for path in ("ping", "health")
        ] == [200] * 4
        place = _erased(prepared)
        status, told = _post(follows, {"inputs": TEXTS})
        assert status == 200, told
        assert json.loads(told)["predictions"] == champion_of(place).predict(TEXTS)
        assert [_get(f"{follows}/{path}")[0] for path in ("ping", "health")] == [200, 200]
        assert [_get(f"{held}/{path}")[0] for path in ("ping", "health")] == [503, 503]
        status, told = _post(held, {"inputs": TEXTS})
        assert status == 503 and "moved on" in json.loads(told)["message"] and TEXTS[0] not in told
        place.registry.connection.client.delete_registered_model_alias(
            "tiny", "champion"
        )  # nothing confirms it
        assert _get(f"{follows}/ping")[0] == _post(follows, {"inputs": []})[0] == 503
        place.registry.serve("2")
        assert _get(f"{follows}/ping")[0] == _post(follows, {"inputs": []})[0] == 200
        assert _get(f"{held}/ping")[0] == 503
        assert "a secret" not in log.read_text()


def test_a_version_has_a_signature_and_an_invented_example_that_works(prepared: Prepared) -> None:
    model = _by(prepared.fresh(), "alias")
    assert model.metadata.signature.outputs.input_names() == ["label", "probabilities"]
    assert model.input_example == ["words"] and len(model.predict(model.input_example)) == 1
    with pytest.raises(DataError, match="2 columns"):
        model.predict([{"id": "r1", "other": "x"}])
