"""The command line as a user types it, in processes of its own, from nothing to a certificate."""

import ast
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app as cli
from flows.cli import base as cli_base
from flows.cli import evidence as cli_evidence
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from s3t_core.errors import DataError, UsageError, WorkspaceError
from tests.flows.conftest import CANARY, CANARY_TEXT, people, write_csv

S3T = str(Path(sys.executable).with_name("s3t"))


def environment() -> dict[str, str]:
    """A user's own: what other tests set in this process (MLflow's registry, Prefect's server) is
    left out; the credential for an MLflow server is the user's."""
    credential = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    return {
        k: v
        for k, v in os.environ.items()
        if k in credential or not k.startswith(("PREFECT_", "MLFLOW_", "S3T_"))
    }


def _run(
    *arguments: str, cwd: Path, code: int = 0, given: str = ""
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [S3T, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=240,
        input=given,
    )
    assert done.returncode == code, (arguments, done.stdout[-800:], done.stderr[-2000:])
    return done


def _json(*arguments: str, cwd: Path, code: int = 0, given: str = "") -> Any:
    command, *rest = arguments
    return json.loads(
        _run(command, "--json", *rest, cwd=cwd, code=code, given=given).stdout
    )  # one document


def _checked(*arguments: str, cwd: Path, code: int = 0) -> Any:
    """As `_json`, in this process: what only reads a file keeps nothing that another command could
    miss."""
    command, *rest = arguments
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(cli.app, [command, "--json", *rest])
    assert done.exit_code == code, (arguments, done.output[-2000:])
    return json.loads(done.stdout)


def _settle(workspace: Path, backbone: Path) -> None:
    """What the README tells a user to edit."""
    path = workspace / "s3t.toml"
    text = path.read_text()
    for old, new in (
        ('text = "text"', 'text = "what"'),
        ('label = "label"', 'label = "kind"'),
        ('\nsubject = "subject"', '\nsubject = "who"'),
        ("labels = []", 'labels = ["good", "bad"]'),
        ('held_out_by = ""', 'held_out_by = "who"'),
        ("slices = 3", "slices = 2"),
        ("budget = 3", "budget = 2"),
        ("shards = 3", "shards = 2"),
        ('model = "minilm"', f'model = "{backbone}"'),
        ("staleness_seconds = 5.0", "staleness_seconds = 0"),
        ("idle_minutes = 10.0", "idle_minutes = 1.0"),
    ):
        assert old in text, old
        text = text.replace(old, new, 1)
    path.write_text(text)


def _bring_a_key(workspace: Path) -> None:
    """A key of one's own, as from an earlier workspace: placement is the same in every run of this
    test."""
    keys = workspace / ".s3t" / "keys"
    keys.mkdir(parents=True)
    (keys / "workspace.key").write_text((b"\x05" * 32).hex())
    (keys / "workspace.key").chmod(0o600)


def _canary_in(root: Path) -> tuple[str, ...]:
    """Files, of all that the system wrote by itself, with the canary's id or text: raw, decoded,
    packed; no list."""
    from flows.adapters.git import git_objects
    from s3t_core.erasure.needles import make_needles
    from s3t_core.erasure.residue import scan

    needles = make_needles([CANARY], [f"{CANARY_TEXT} {i}" for i in range(3)])
    return scan(
        root,
        [],
        [p.name for p in root.iterdir()],
        [],
        needles,
        [],
        unpack=lambda pack: git_objects(pack, None),
    ).residue


def _snippet_of_the_readme() -> str:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    return text.split("```python\n")[1].split("```")[0]


def test_the_snippet_of_the_readme_in_a_wrong_place_is_an_error_and_makes_no_database(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _snippet_of_the_readme()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.returncode == 1 and "No such file or directory: '.s3t'" in done.stderr
    assert not list(tmp_path.rglob("*"))


@pytest.mark.long
def test_several_documents_are_verified_at_once_and_a_copy_counts_for_none(tmp_path: Path) -> None:
    _run("init", "w", cwd=tmp_path)
    here = tmp_path / "w"
    asked = [
        r["id"]
        for r in _json("request", "--stdin", cwd=here, given="person 1\nperson 2\n")["requests"]
    ]
    for request in asked:
        _json("withdraw", request, cwd=here)
    first, second = [f".s3t/certificates/{r}.json" for r in asked]
    both = _json("verify", first, second, cwd=here)
    assert both["valid"] and [c["request"] for c in both["certificates"]] == asked
    assert [Path(f["path"]).name for f in both["files"]] == [f"{r}.json" for r in asked]
    assert "files" not in _json("verify", first, first, cwd=here)  # one file, named twice
    told = _run("verify", first, second, cwd=here).stdout
    assert told.count("valid: req-") == 2 and told.count("beside the evidence") == 1
    (tmp_path / "mine.json").write_bytes((here / first).read_bytes())
    copied = _json("verify", first, str(tmp_path / "mine.json"), cwd=here, code=1)
    assert "the others are copies" in copied["problems"][0] and not copied["valid"]
    (tmp_path / "mine.json").write_bytes((here / first).read_bytes()[:-9])
    assert not _json("verify", second, str(tmp_path / "mine.json"), cwd=here, code=1)["valid"]
    assert "nothing at" in _json("verify", first, "no.json", cwd=here, code=2)["message"]
    for unread in ("deep/er/a.json", "b.JSON"):  # "valid" would be said beside what nobody read
        folder = tmp_path / unread.replace("/", "-")
        (folder / unread).parent.mkdir(parents=True)
        (folder / f"{asked[0]}.json").write_bytes((here / first).read_bytes())
        assert _json("verify", str(folder), "--key", str(here / ".s3t/keys/signing.pub"), cwd=here)[
            "valid"
        ]
        (folder / unread).write_text("forged")
        told = _json(
            "verify", str(folder), "--key", str(here / ".s3t/keys/signing.pub"), cwd=here, code=1
        )
        assert "1 deeper in it or with another ending" in told["problems"][0]


@pytest.mark.slow
@pytest.mark.minutes
@pytest.mark.timeout(1500)  # some thirty commands; others run beside it
def test_the_whole_walk_on_data_of_ones_own(tmp_path: Path, tiny_backbone: Path) -> None:
    source = write_csv(tmp_path / "people.csv", people(canary=True))
    _bring_a_key(tmp_path / "W")
    assert Path(_json("init", "W", cwd=tmp_path)["workspace"]) == tmp_path / "W"
    here = tmp_path / "W"
    unlabelled = _json("ingest", str(source), cwd=here, code=2)
    assert "labels" in unlabelled["message"]
    _settle(here, tiny_backbone)
    taken = _json("ingest", str(source), cwd=here)
    assert {"records", "quarantined", "subjects", "dataset_version"} <= taken.keys() and taken[
        "subjects"
    ] == 19
    source.unlink()
    trained = _json("train", cwd=here)
    assert {"trained", "reused", "version", "accuracy", "seconds"} <= trained.keys() and trained[
        "trained"
    ] == 8
    _run("predict", "w1 w2", cwd=here)
    asked = _json("request", "person-003", CANARY, cwd=here)["requests"]
    assert [set(r) for r in asked] == [{"id", "received", "due", "state"}] * 2
    assert {r["state"] for r in asked} == {"pending"}
    assert _canary_in(here)
    erased = _json("erase", cwd=here)
    assert {"version", "certificates", "deactivated", "seconds", "retrain"} <= erased.keys()
    assert {c["request"] for c in erased["certificates"]} == {r["id"] for r in asked}
    assert erased["retrain"] in ("no", "done")
    assert _canary_in(here) == ()
    status = _json("status", cwd=here)
    assert status["version"] == erased["version"]
    assert {"accuracy", "shards", "pending", "deletion_budget"} <= status.keys()
    assert {"shard", "live_depth", "replicas"} <= status["shards"][0].keys()
    answers = _json("predict", "w1 w2", "w3", cwd=here)
    assert [set(a) for a in answers] == [{"label", "probabilities"}] * 2
    verified = _json(
        "verify", erased["certificates"][0]["path"], "--key", ".s3t/keys/signing.pub", cwd=here
    )
    assert verified["valid"] and verified["problems"] == []
    _audits(here, tmp_path)
    forged = Path(erased["certificates"][0]["path"])
    forged.write_bytes(forged.read_bytes().replace(b"A", b"B", 1))
    assert not _json("verify", str(forged), cwd=here, code=1)["valid"]
    retrained = _json("retrain", cwd=here)
    assert retrained["reused"] + retrained["trained"] == 8
    snippet = _snippet_of_the_readme()
    plain = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert plain.returncode == 0, plain.stderr[-2000:]
    assert ast.literal_eval(plain.stdout.splitlines()[-1]) == _json("predict", "a text", cwd=here)
    write_csv(tmp_path / "new.csv", [{"id": "r1", "what": "w1 w2"}])
    out = _json(
        "predict",
        "--file",
        str(tmp_path / "new.csv"),
        "--out",
        str(tmp_path / "out.jsonl"),
        cwd=here,
    )
    assert out["rows"] == 1 and json.loads((tmp_path / "out.jsonl").read_text())["row"] == 1
    assert erased["next"]["command"] in ("s3t repair", "") and erased["next"]["why"]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_an_id_that_is_the_one_of_a_flow_run_keeps_nobody_else(
    tmp_path: Path, tiny_backbone: Path
) -> None:
    """It stands in Prefect's database: the others are carried out, and it is told what is with
    it."""
    here = tmp_path / "W"
    _json("init", "W", cwd=tmp_path)
    _settle(here, tiny_backbone)
    _json("ingest", str(write_csv(tmp_path / "people.csv", people())), cwd=here)
    with contextlib.closing(sqlite3.connect(here / ".s3t" / "prefect" / "prefect.db")) as database:
        (run,) = database.execute("SELECT id FROM flow_run ORDER BY created LIMIT 1").fetchone()
    asked = _json("request", run, "person-006", cwd=here)["requests"]
    done = _run("erase", "--json", cwd=here, code=1)
    told = json.loads(done.stdout)
    assert asked[1]["id"] in {c["request"] for c in told["certificates"]}
    assert [(w["request"], w["state"]) for w in told["waiting"]] == [(asked[0]["id"], "deferred")]
    last = done.stderr.splitlines()[-1]
    assert (
        last.startswith("s3t: expected an id that no row")
        and ".s3t/prefect/prefect.db" in last
        and run not in last
    )
    assert [r["id"] for r in _json("requests", "--state", "deferred", cwd=here)["requests"]] == [
        asked[0]["id"]
    ]
    _run("withdraw", asked[0]["id"], cwd=here)
    assert _json("erase", cwd=here)["waiting"] == []


def _audits(here: Path, folder: Path) -> None:
    """Evidence, as whoever audits gets and checks it; the ledger went on since the checkpoint that
    they kept."""
    key, kept, bundle, ledger = (
        folder / n for n in ("key.pem", "kept.json", "evidence.zip", "ledger.jsonl")
    )
    key.write_bytes((here / ".s3t" / "keys" / "signing.pub").read_bytes())
    kept.write_bytes((here / ".s3t" / "checkpoint.json").read_bytes())
    _json("request", "person-005", cwd=here)
    told = _json(
        "audit",
        "--bundle",
        str(bundle),
        "--ledger",
        str(ledger),
        "--checkpoint",
        str(kept),
        cwd=here,
    )
    assert told["bundle"]["certificates"] == 2
    assert "pass --key signing.pub" in _json("verify", str(bundle), cwd=folder, code=2)["message"]
    assert _checked(
        "verify", str(bundle), "--key", str(key), "--checkpoint", str(kept), cwd=folder
    )["valid"]
    assert "does not prove" in _run("verify", str(bundle), "--key", str(key), cwd=folder).stdout
    counts = _checked("verify", str(ledger), "--key", str(key), cwd=folder)["ledger"]
    assert (counts["requests"], counts["certified"]) == (3, 2)
    assert "person-00" not in ledger.read_text()
    assert (
        _checked("verify", str(kept), "--key", str(key), cwd=folder)["checkpoints"][0]["size"]
        < counts["size"]
    )
    ledger.write_bytes(ledger.read_bytes().replace(b'"cause":"train"', b'"cause":"trial"', 1))
    assert (
        "rewritten"
        in _checked("verify", str(ledger), "--key", str(key), cwd=folder, code=1)["problems"][0]
    )
    bundle.write_bytes(bundle.read_bytes()[:-100])
    assert not _checked("verify", str(bundle), "--key", str(key), cwd=folder, code=1)["valid"]
    report = _json("audit", "--since", "1d", "--out", str(folder / "report"), cwd=here)["report"]
    assert (report["requests"], report["deadlines_missed"]) == (3, 0)
    assert all(Path(report[kind]).stat().st_size > 4_000 for kind in ("html", "pdf", "json"))
    assert (
        _checked("verify", report["json"], "--key", str(key), cwd=folder)["reports"][0]["erased"]
        == 2
    )
    assert CANARY not in "".join(Path(report[kind]).read_text() for kind in ("html", "json"))
    _run("audit", "--since", "tomorrow", cwd=here, code=2)
    _run("audit", "--bundle", "no-such-folder/x.zip", cwd=here, code=2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("status",), "s3t init"),
        (("ingest", "x.csv"), "s3t init"),
        (("erase",), "s3t init"),
        (("predict", "x"), "s3t init"),
        (("request", "x"), "s3t init"),
    ],
)
def test_outside_a_workspace_every_command_says_what_to_do(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = _run(*arguments, cwd=tmp_path, code=2)
    assert said in done.stderr and "Traceback" not in done.stderr


def test_the_id_of_a_record_comes_by_the_standard_input_and_so_do_hashes(tmp_path: Path) -> None:
    _run("init", "w", cwd=tmp_path)
    here, record = tmp_path / "w", ("--record", "-")
    settings = (here / "s3t.toml").read_text()
    (here / "s3t.toml").write_text(settings.replace('record = ""', 'record = "id"'))
    asked = _json("request", "--stdin", *record, cwd=here, given="person 1\n-r7\n")["requests"]
    assert [r["state"] for r in asked] == ["pending"]
    for command, text in (
        (("request", "person 1", *record), "-r7\n"),
        (("request", "person 1", "--record=-r7"), ""),
    ):
        again = _json(*command, cwd=here, given=text)
        assert again["open_before"] == [asked[0]["id"]]
    same = _json("request", "--stdin", *record, cwd=here, given="r9\nr9\n")["requests"]
    assert len(same) == 1 and same[0]["id"] != asked[0]["id"]
    by_hash = "sha256:" + "ab" * 32
    assert len(_json("request", "--hashed", "-", cwd=here, given=f"{by_hash}\n")["requests"]) == 1
    lifted = ("lift", "--stdin", *record, "--by", "clerk")
    assert "suppression list" in _json(*lifted, cwd=here, given="a\nb\n", code=2)["message"]
    for wrong, text in (
        (("request", "--stdin", *record), "a\n"),
        (("request", "--stdin", *record), "a\nb\nc\n"),
        (("request", "a", *record), "a\nb\n"),
        (("request", "--file", "-", *record), "a\nb\n"),
    ):
        assert _run(*wrong, cwd=here, given=text, code=2).stderr.startswith("s3t: expected")


@pytest.mark.long
def test_ids_come_by_the_standard_input_and_may_begin_with_a_hyphen(tmp_path: Path) -> None:
    _run("init", "w", cwd=tmp_path)
    here, why = tmp_path / "w", ("--basis", "other", "--reason", "a law", "--by", "clerk")
    asked = _json("request", "--stdin", cwd=here, given="-17\nperson 2\r\n")["requests"]
    assert [r["state"] for r in asked] == ["pending", "pending"]
    assert (
        _json("request", "--file", "-", cwd=here, given="-17\n")["requests"][0]["id"]
        == asked[0]["id"]
    )
    assert _json("request", "--", "-17", cwd=here)["requests"][0]["id"] == asked[0]["id"]
    assert _json("hold", "--stdin", *why, cwd=here, given="-17\n")["waiting"] == 1
    assert _json("hold", *why, "--", "-17", cwd=here)["waiting"] == 1
    assert _json("release", "--file", "-", "--by", "clerk", cwd=here, given="-17\n") == {
        "held": False
    }
    assert (
        "suppression list"
        in _json("lift", "--stdin", "--by", "clerk", cwd=here, given="person 3\n", code=2)[
            "message"
        ]
    )
    for wrong, text in (
        (("hold", "--stdin", *why), "a\nb\n"),
        (("release", "--by", "x"), ""),
        (("request", "--stdin", "--file", "-"), "a\n"),
        (("request", "--stdin"), ""),
    ):
        assert _run(*wrong, cwd=here, given=text, code=2).stderr.startswith("s3t: expected")
    told = _run("request", "--stdin", cwd=here, given="person 2\nperson 6\n").stdout
    assert (
        told.count("asked for before: the same request") == 1
        and "1 request(s) accepted, 1 open since" in told
    )
    _json("request", "--stdin", "--key", "ticket 1", cwd=here, given="person 5\n")
    again = _json("request", "--stdin", "--key", "ticket 1", cwd=here, given="person 5\n")[
        "requests"
    ][0]
    _json("withdraw", again["id"], cwd=here)
    done = _run("request", "--stdin", "--key", "ticket 1", cwd=here, given="person 5\n", code=1)
    assert "closed before: withdrawal" in done.stdout and "0 request(s) accepted" in done.stdout
    assert "ask anew with another --key" in done.stderr


def _tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        p.relative_to(folder).as_posix(): (
            p.lstat().st_mtime_ns,
            p.read_bytes() if p.is_file() else b"",
        )
        for p in folder.rglob("*")
    }


@pytest.mark.slow
def test_a_check_says_what_an_ingest_would_do_and_changes_nothing(
    make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    here = make_place().root
    text = write_csv(tmp_path / "a.csv", people()).read_text()
    (tmp_path / "a.csv").write_text(text.replace(",", ";").replace("good", "Good", 3))
    before = _tree(here)
    told = _json("ingest", "--check", "../a.csv", cwd=here)
    assert told["fits"] and (told["delimiter"], told["rows"], told["refused"]) == (";", 36, 3)
    assert told["refused_labels"] == {"Good": 3} and 'text = "what"' in told["data"]
    (tmp_path / "b.csv").write_text(text.replace("who", "person", 1))
    done = _run("ingest", "--check", str(tmp_path / "b.csv"), cwd=here, code=2)
    assert (
        "columns found: 'id', 'person', 'what', 'kind'" in done.stdout
        and 'subject = "person"' in done.stdout
    )
    assert _tree(here) == before
    (tmp_path / "empty").mkdir()
    alone = _run("ingest", "--check", "../b.csv", cwd=tmp_path / "empty", code=2)
    assert "Columns found: 'id', 'person', 'what', 'kind'." in alone.stdout and not _tree(
        tmp_path / "empty"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.csv", "expected column 'what' (text) and column 'who' (subject)"),
        ("latin1.csv", "is it Latin-1"),
        ("utf16.csv", 'encoding = "utf-16-le"'),
        ("open.csv", "on line 2 that nobody closes"),
        ("book.csv", "zip archive"),
        ("cut.csv", "cut before its end"),
        ("labels.csv", "which hold 'UP' (1)"),
    ],
)
def test_a_source_that_is_refused_is_told_at_once_in_one_sentence_before_prefect_starts(
    make_place: Callable[..., Workspace], tmp_path: Path, name: str, sentence: str
) -> None:
    here = make_place(data={"labels": ["up", "down"]}).root
    head = "id,who,what,kind\n"
    content = {
        "a.csv": b"id,Who,body,kind\n1,a,b,up\n",
        "latin1.csv": b"id,who,what,kind,gem\xfct\n1,a,b,up,c\n",
        "utf16.csv": (head * 3).encode("utf-16-le"),
        "open.csv": (head + '1,a,"b,up\n2,c,d,up\n').encode(),
        "book.csv": b"PK\x03\x04\x00",
        "cut.csv": b"\x1f\x8b\x08\x00\x00",
        "labels.csv": (head + "1,a,b,UP\n").encode(),
    }
    (tmp_path / name).write_bytes(content[name])
    done = _run("ingest", "--json", f"../{name}", cwd=here, code=2)
    document = json.loads(done.stdout)
    assert sentence in document["message"] and "\n" not in document["message"]
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert done.stderr.splitlines()[-1] == f"s3t: {document['message']}"
    assert not (here / ".s3t" / "prefect").exists()


def test_what_is_missing_is_told_before_prefect_starts(
    make_place: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data for a training; keys for anything: in a clone of the sources, say, which have a
    s3t.toml."""
    place = make_place()
    monkeypatch.setattr(
        "flows.settings.begin_prefect", lambda *_: pytest.fail("Prefect was started")
    )
    for flow in ("train", "retrain"):
        with pytest.raises(DataError, match="run `s3t ingest SOURCE`"):
            cli._show_trained(False, place, flow)
    (place.keys_dir / "workspace.key").unlink()
    with pytest.raises(WorkspaceError, match="go there or pass --workspace"):
        cli_base.run_flow(Workspace(place.root), "erase")


@pytest.mark.parametrize("option", ["--out", "--bundle", "--ledger"])
@pytest.mark.parametrize("place", ["data", ".s3t/keys", ".dvc/cache", ".git", ".s3t/stages"])
def test_evidence_is_written_for_its_user_and_not_where_the_system_keeps_its_own(
    tmp_path: Path, option: str, place: str
) -> None:
    here = create_workspace(tmp_path / "w", Config(), b"\x01" * 32).root
    (here / place).mkdir(parents=True, exist_ok=True)
    name = {"--out": "report", "--bundle": "a.zip", "--ledger": "a.jsonl"}[option]
    before = _tree(here / place)
    with pytest.raises(UsageError, match="outside of what the system keeps"):
        cli_evidence.audit(workspace=str(here), **{option[2:]: str(here / place / name)})
    assert _tree(here / place) == before


def test_a_prefect_server_that_does_not_answer_is_told_without_a_traceback(
    tmp_path: Path, tiny_backbone: Path
) -> None:
    _run("init", "w", cwd=tmp_path)
    _settle(tmp_path / "w", tiny_backbone)
    source = str(write_csv(tmp_path / "p.csv", people()))
    done = subprocess.run(
        [S3T, "ingest", source],
        cwd=tmp_path / "w",
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        env={**environment(), "PREFECT_API_URL": "http://127.0.0.1:9/api"},
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "s3t: expected Prefect's server (PREFECT_API_URL) to answer" in done.stderr


def test_an_error_of_ours_that_prefect_could_not_report_is_the_one_that_is_told() -> None:
    import httpx

    from flows.cli.base import meaning
    from s3t_core.errors import OrchestrationError, StorageError

    try:
        try:
            raise StorageError("the database refused")
        except StorageError:
            raise httpx.ConnectError("no") from None
    except httpx.HTTPError as error:
        assert str(meaning(error)) == "the database refused"
    assert isinstance(meaning(httpx.ConnectError("no")), OrchestrationError)
    assert meaning(ValueError("a bug stays a traceback")) is None


def test_bad_usage_exits_2_and_init_overwrites_nothing(tmp_path: Path) -> None:
    assert _run("frobnicate", cwd=tmp_path, code=2).stderr
    _run("init", "W", cwd=tmp_path)
    key = (tmp_path / "W" / ".s3t" / "keys" / "workspace.key").read_bytes()
    (tmp_path / "W" / "s3t.toml").write_text("[system]\nname = 'mine'\n")
    _run("init", "W", cwd=tmp_path)
    assert (tmp_path / "W" / ".s3t" / "keys" / "workspace.key").read_bytes() == key
    assert "mine" in (tmp_path / "W" / "s3t.toml").read_text()
    assert "s3t train" in _run("predict", "x", cwd=tmp_path / "W", code=2).stderr


def test_the_release_is_told(tmp_path: Path) -> None:
    from importlib.metadata import version

    assert _run("--version", cwd=tmp_path).stdout == f"s3t {version('s3t')}\n"


_ABORTS = """
import atexit, ctypes, sys, threading
c = ctypes.CDLL(None)
c.__cxa_atexit(c.abort, None, None)
def end():
    threading.main_thread().join()
    print("a thread ended")
    atexit.register(print, "registered")
threading.Thread(target=end).start()
from flows.cli import main
sys.argv = ["s3t", *sys.argv[1:]]
main()
"""
"""A command whose libraries abort the process in their destructors."""


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["status"], 2)])
def test_a_command_that_answered_is_not_aborted_by_what_a_library_does_at_its_end(
    tmp_path: Path, arguments: list[str], code: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ABORTS, *arguments],
        check=False,
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-2:] == ["a thread ended", "registered"]
    assert ("s3t: expected" in done.stderr) == (code == 2)


def test_what_cannot_be_written_out_at_the_end_is_no_success(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [S3T, "--version"],
            check=False,
            cwd=tmp_path,
            env={**environment(), "PYTHONUNBUFFERED": ""},
            stdout=full,
            stderr=full,
        )
    assert done.returncode not in (0, -6)


@pytest.mark.long_but_first
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_answer_that_cannot_be_written_is_told_in_a_sentence(
    tmp_path: Path, more: list[str], unbuffered: str
) -> None:
    """A request is taken all the same: who asked must learn that."""
    _run("init", "W", cwd=tmp_path)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [S3T, "request", "person-1", *more],
            check=False,
            cwd=tmp_path / "W",
            env={**environment(), "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "what the command did stands" in done.stderr
    assert len(_json("requests", cwd=tmp_path / "W")["requests"]) == 1


def test_who_reads_no_further_is_told_nothing(tmp_path: Path) -> None:
    """As in `s3t plan | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [S3T, "plan", "--shards", "2", "--slices", "2", "--budget", "1"],
        check=False,
        cwd=tmp_path,
        env={**environment(), "PYTHONUNBUFFERED": ""},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "ignored" not in done.stderr


def test_help_and_status_import_nothing_heavy(tmp_path: Path) -> None:
    heavy = "{'torch', 'mlflow', 'prefect', 'pandas', 'dvc', 'great_expectations', 'transformers'}"
    _run("init", "W", cwd=tmp_path)
    for arguments in (["--help"], ["status"], ["status", "--json"], ["request", "somebody"]):
        program = (
            "import sys; from flows.cli.app import main\nsys.argv = ['s3t', *"
            + repr(arguments)
            + "]\n"
            "try: main()\nexcept SystemExit: pass\n"
            f"loaded = {heavy} & set(sys.modules); assert not loaded, loaded"
        )
        subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path / "W", check=True, capture_output=True
        )


def test_verifying_imports_neither_torch_nor_prefect_nor_mlflow() -> None:
    program = (
        "import sys, flows.use_cases.verifying, s3t_core.erasure.executor\n"
        "loaded = {'torch', 'mlflow', 'prefect', 'transformers', 'peft'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_readme_lists_the_commands_there_are(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    told = (root / "README.md").read_text()
    listed = [
        line.split()[0]
        for line in _run("--help", cwd=tmp_path).stdout.split("Commands:")[1].splitlines()
        if line.startswith("  ") and line.strip() and line[2] != " "
    ]
    assert len(listed) >= 10
    assert all(f"s3t {name}" in told for name in listed)
