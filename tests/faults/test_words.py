"""Words of the system's own, and of people, in evidence that stays: neither may stop an erasure for
ever."""

import base64
import contextlib
import json
import re
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from prometheus_client.parser import text_string_to_metric_families

from flows.adapters.keys import read_signing_key
from flows.metrics import text_of
from flows.use_cases.erasing import render_deferred, why_erase_now
from flows.use_cases.ingesting import ingest_source
from flows.use_cases.reporting import write_report
from flows.use_cases.requests import approve, extend, hold, lift, lift_hold, reject, withdraw
from flows.use_cases.rotating import rotate_signing_key
from flows.use_cases.taking import take_hashed, take_requests
from flows.workspace import access
from flows.workspace.composing import baseline_of, erase_policy, erase_ports
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from s3t_core.erasure.certificate import LIMITS, make_statement
from s3t_core.erasure.dsse import sign
from s3t_core.erasure.evidence_documents import Subject
from s3t_core.erasure.executor import Eraser
from s3t_core.erasure.needles import make_needles
from s3t_core.errors import DataError, UsageError
from s3t_core.identity import HASHES
from s3t_core.slicefile import read_rows
from tests.flows.conftest import tiny_config, write_csv
from tests.flows.prepared import forget_connections
from tests.held import HELD

ANN, BOB, SPACED, NUMBER = "ann@example.org", "bob@example.org", "Berta van Dam", "100177"
REFUSED = "refused@example.org"
OFFICE = "office@example.org"
"""Who was written into the ledger before names were looked at, and is in no data."""


@pytest.fixture(scope="module")
def _kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a certified erasure, a rejection, a hold, a report."""
    folder = tmp_path_factory.mktemp("words")
    place = create_workspace(folder / "w", tiny_config(folder / "no backbone"), b"\x05" * 32)
    _ingest(place, folder, ANN, BOB, SPACED, NUMBER)
    place = Workspace(place.root)
    (request,) = take_requests(place, [ANN])
    with access.changing(place):
        place.ledger.append(
            {"type": "approved", "time": place.now(), "request": request.request_id, "by": OFFICE}
        )
    _erase(place)
    place = Workspace(place.root)
    (request,) = take_requests(place, ["nobody@example.org"])
    reject(place, request.request_id, "12(6)", "no answer came to either letter", "privacy officer")
    hold(place, SPACED, "17(3)(e)", "claims are open", "legal department")
    lift_hold(place, SPACED, "legal department")
    write_report(place, None, place.reports_dir / "2026-11-26")
    shutil.copytree(place.root, folder / "kept", symlinks=True)
    return folder


@pytest.fixture
def place(_kept: Path) -> Workspace:
    """The same, put back at its path: MLflow keeps absolute ones."""
    shutil.rmtree(_kept / "w")
    shutil.copytree(_kept / "kept", _kept / "w", symlinks=True)
    forget_connections()
    return Workspace(_kept / "w")


def _ingest(place: Workspace, folder: Path, *who: str) -> None:
    rows = [
        {
            "id": f"r{each}-{i}",
            "who": each,
            "what": f"what {each} said for the {i}th time in words of their own",
            "kind": ["good", "bad", "ugly"][i],
        }
        for each in [*who, *(f"other-{n}" for n in range(10))]
        for i in range(3 if each == REFUSED else 2)
    ]
    ingest_source(
        Workspace(place.root),
        HELD,
        str(write_csv(folder / "people.csv", rows)),
        False,
        20_000,
        True,
    )


def _erase(place: Workspace) -> dict[str, str]:
    place = Workspace(place.root)
    plan = Eraser(
        erase_ports(place, HELD), erase_policy(place), lambda: f"plan-{uuid.uuid4().hex[:16]}"
    ).run()
    assert plan is not None
    state = place.ledger.state()
    return {r: state.outcomes[r][0] for r in plan.requests if r in state.outcomes}


def _members(value: Any) -> Iterator[str]:
    """Every name and every text within a JSON value."""
    if isinstance(value, dict):
        yield from value
    for each in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from _members(each)
    if isinstance(value, str):
        yield value


def _documents(place: Workspace) -> dict[str, list[bytes]]:
    """What is signed, and the ledger, as canonical JSON."""
    signed = {
        "certificates": sorted(place.certificates_dir.glob("*.json")),
        "reports": sorted(place.reports_dir.rglob("*.json")),
        "checkpoint": [place.state_dir / "checkpoint.json"],
    }
    told = {
        kind: [base64.b64decode(json.loads(p.read_bytes())["payload"]) for p in paths]
        for kind, paths in signed.items()
    }
    return told | {
        "ledger": place.ledger.entries(),
        "envelopes": [p.read_bytes() for paths in signed.values() for p in paths],
    }


@pytest.mark.long_but_first
@pytest.mark.parametrize("kind", ["certificates", "reports", "checkpoint", "ledger", "envelopes"])
def test_nothing_that_the_system_wrote_stops_an_erasure_as_an_id_or_a_text(
    place: Workspace, kind: str
) -> None:
    documents = _documents(place)[kind]
    words = {word for d in documents for word in _members(json.loads(d))}
    words |= {part for word in words for part in re.split(r"[,;:.] ", word)}
    pieces = {d.decode()[i : i + 60] for d in documents for i in range(0, len(d) - 60, 40)}
    needles = make_needles(sorted(words), sorted(words | pieces), baseline_of(place))
    assert (needles.ids, needles.windows) == ((), ())
    assert needles.unsearchable == len(words) + len(words | pieces) > 40


def test_names_of_what_others_write_stop_no_erasure(place: Workspace) -> None:
    dataset = place.ledger.state().dataset
    assert dataset is not None
    md5 = dataset.version
    names = [
        "files/md5",
        f"files/md5/{md5[:2]}/{md5[2:]}",
        md5,
        md5[2:],
        "experiment_id",
        "mlflow.runName",
        "registered_model_tags",
        "least-recently-stored",
        "python_function",
        "data/shard=00/slice=01.parquet",
        f"{place.root.resolve()}/data/held_out.parquet",
        "suppression",
        "refs/heads/main",
        "pre-commit.sample",
        (place.root / ".git/refs/heads/main").read_text().strip(),
        "s3t@localhost",
        "s3t.budget.exhausted",
        "An example hook script to verify what is about to be committed.",
    ]
    needles = make_needles(names, [], baseline_of(place))
    assert needles.ids == ()


@pytest.mark.long
def test_sentences_are_known_before_the_first_certificate_is_written(tmp_path: Path) -> None:
    create_workspace(tmp_path / "w", Config())
    texts = [
        *LIMITS,
        "application/vnd.in-toto+json",
        "urn:s3t:erasure-certificate:v1",
        "urn:s3t:compliance-report:v1",
        "HMAC-SHA256(key: commitment key, salt, id); the controller holds key and salt",
    ]
    names = [
        "ids_lost",
        "not_covered",
        "payloadType",
        "data_objects_md5",
        "deadlines_missed",
        "clock_corrected",
    ]
    needles = make_needles(names, texts, baseline_of(Workspace(tmp_path / "w")))
    assert (needles.ids, needles.windows) == ((), ())


def test_who_is_in_the_data_is_searched_for(place: Workspace) -> None:
    people = [ANN, BOB, SPACED, NUMBER, "other-3"]
    needles = make_needles(
        people, [f"what {BOB} said for the 1th time in words of their own"], baseline_of(place)
    )
    assert (
        set(needles.ids) >= {p.encode() for p in people}
        and needles.windows
        and not needles.unsearchable
    )


def test_requests_by_what_the_system_wrote_are_certified_and_keep_nobody(place: Workspace) -> None:
    state = place.ledger.state()
    assert state.dataset is not None
    told = next(iter(state.requests))
    names = [
        "asked_by",
        "plan_id",
        "files/md5",
        told,
        state.dataset.version,
        state.requests[told].commitment,
        "subject_digest",
        f"{told}.json",
        OFFICE,
        "privacy officer",
        "no answer came to either letter",
    ]
    asked = take_requests(place, [*names, BOB])
    outcomes = _erase(place)
    assert [outcomes[r.request_id] == "nothing found" for r in asked] == [True] * len(names) + [
        False
    ]
    told = [_predicate(place, r.request_id) for r in asked]
    assert {t["scan"]["unsearchable"] for t in told} == {len(names)}
    assert [t["found"]["id_searched"] for t in told] == [False] * len(names) + [True]
    assert _found_again(place, SPACED)


def _predicate(place: Workspace, request: str) -> dict[str, Any]:
    """What the certificate of a request says."""
    envelope = json.loads((place.certificates_dir / f"{request}.json").read_bytes())
    said: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))["predicate"]
    return said


def _digests_of_data(place: Workspace) -> dict[str, str]:
    """Keyed digests of people and records who stay, from where a reader of the files sees them."""
    history = place.ledger.state().datasets
    row, *_ = next(
        rows for p in place.datasets.files.recorded_row_files(history) if (rows := read_rows(p))
    )
    return {
        "subject": row.subject,
        "record": row.record,
        "quarantined": place.datasets.quarantine.rows()[0]["subject_digest"],
    }


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    "what", ["subject", "record", "quarantined", "a stage", "a run", "a line of a log"]
)
def test_who_asks_for_what_stands_in_a_file_of_the_systems_keeps_nobody_else(
    place: Workspace, what: str
) -> None:
    """Whoever may ask, and sees a file, a page of MLflow's or of Prefect's, knows such names. There
    are more of them than anybody can list: a request of such an id waits alone."""
    log, named = place.state_dir / "prefect" / "serve.log", "0192f0c1-7e5a-7d2c-9f3e-5b1a2c3d4e5f"
    log.parent.mkdir(exist_ok=True)
    log.write_text(f"2026-11-26 flow run {named} of user-8842A began\n")
    _ingest(place, place.root.parent, ANN, BOB, SPACED, NUMBER, REFUSED)
    place = Workspace(place.root)
    asked = _digests_of_data(place) | {
        "a stage": named,
        "a run": "user-8842A",
        "a line of a log": "flow run " + named,
    }
    request, bob = take_requests(place, [asked[what], BOB])
    assert _erase(place) == {bob.request_id: "held out only"}
    assert set(place.requests.open_now()) == {request.request_id} == place.ledger.state().deferred
    assert not (place.certificates_dir / f"{request.request_id}.json").exists()
    assert asked[what].encode() not in b"".join(place.ledger.entries())
    assert _found_again(place, SPACED)
    place.requests.check()
    withdraw(place, request.request_id)
    assert not Workspace(place.root).ledger.state().deferred


@pytest.mark.long
@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_hash_that_is_nobodys_and_stands_in_a_file_keeps_nobody_else(
    place: Workspace, algorithm: str
) -> None:
    """DVC and Prefect name directories and blocks by digests that anybody can compute."""
    late = "late@example.org"
    digits = HASHES[algorithm][1](late.encode())
    (place.state_dir / "serve.log").write_text(f"index {digits} was read\n")
    (hashed,) = take_hashed(place, [f"{algorithm}:{digits}"])
    (bob,) = take_requests(place, [BOB])
    assert _erase(place) == {bob.request_id: "held out only"}
    assert Workspace(place.root).ledger.state().deferred == {hashed.request_id}
    assert _found_again(place, SPACED)
    _ingest(place, place.root.parent, ANN, NUMBER, late)  # now it is somebody's
    assert _erase(place) == {}
    assert Workspace(place.root).ledger.state().set_aside == [hashed.request_id]
    (place.state_dir / "serve.log").unlink()
    assert _erase(place)[hashed.request_id] != "nothing found"


def test_a_deferred_request_counts_as_one_and_starts_no_run_however_near_its_deadline(
    place: Workspace,
) -> None:
    """Alone in its erasure, it was never cut over: the time that the one before took stays told."""
    took = _metric(place, "s3t_cut_over_seconds")
    (place.state_dir / "serve.log").write_text("a run of user-8842A began\n")
    (request,) = take_requests(place, ["user-8842A"])
    place.config = place.config.model_copy(
        update={"erasure": place.config.erasure.model_copy(update={"at_once_hours": 24 * 365})}
    )
    assert request.request_id in why_erase_now(place)
    assert _erase(place) == {}
    again = Workspace(place.root)
    again.config = place.config
    assert why_erase_now(again) == ""
    assert _metric(again, "s3t_cut_over_seconds") == took is not None
    assert _metric(again, "s3t_requests", state="deferred") == 1


def test_what_is_told_of_deferred_requests_says_whether_a_search_was_done() -> None:
    found = render_deferred({"req-1": ("mlflow.db", "a log"), "req-2": ("a log",)})
    assert "which stand in 2 file(s): a log, mlflow.db. They stay open (req-1, req-2)" in found
    unsearched = render_deferred({"req-1": ()})
    assert "no search that could be done" in unsearched and "file" not in unsearched


def _metric(place: Workspace, name: str, **labels: str) -> float | None:
    samples = [s for f in text_string_to_metric_families(text_of(place)) for s in f.samples]
    return next((s.value for s in samples if s.name == name and s.labels == labels), None)


ZOE = "zoe@example.org"
SAID = f"what {BOB} said for the 1th time in words of their own"


def _in_a_schema(place: Workspace, patch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(sqlite3.connect(place.state_dir / "s3t.db")) as database:
        database.execute(f"CREATE TABLE more (a TEXT DEFAULT '{BOB}', b TEXT DEFAULT '{SAID}')")


def _in_a_database_beside(place: Workspace, patch: pytest.MonkeyPatch) -> None:
    (place.state_dir / "prefect").mkdir(exist_ok=True)
    path = place.state_dir / "prefect" / "more.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(f"CREATE TABLE more (a TEXT CHECK (a <> '{BOB}' AND a <> '{SAID}'))")


def _in_the_users_template_of_git(place: Workspace, patch: pytest.MonkeyPatch) -> None:
    home = place.root.parent / "home"
    (home / "template").mkdir(parents=True, exist_ok=True)
    (home / "template" / "description").write_text(f"{BOB} {SAID}")
    (home / ".gitconfig").write_text(f"[init]\n\ttemplateDir = {home}/template\n")
    patch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))


def _signed(place: Workspace, key: Ed25519PrivateKey) -> None:
    subject = Subject(name=f"{BOB} {SAID}", digest={"sha256": "0" * 64})
    told = make_statement(subject, subject)
    (place.certificates_dir / "req-0000000000000000.json").write_bytes(sign(told, key))


def _by_a_replaced_key(place: Workspace, patch: pytest.MonkeyPatch) -> None:
    old = read_signing_key(place.keys_dir)
    rotate_signing_key(place, "officer", False)
    _signed(place, old)


def _by_a_key_of_nobodys(place: Workspace, patch: pytest.MonkeyPatch) -> None:
    key = Ed25519PrivateKey.generate()
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (place.keys_dir / "retired-00.pub").write_bytes(pem)
    _signed(place, key)


def _by_the_key_in_use(place: Workspace, patch: pytest.MonkeyPatch) -> None:
    _signed(place, read_signing_key(place.keys_dir))


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    "put",
    [
        _in_a_schema,
        _in_a_database_beside,
        _in_the_users_template_of_git,
        _by_a_replaced_key,
        _by_a_key_of_nobodys,
        _by_the_key_in_use,
    ],
)
def test_what_says_of_itself_that_it_is_the_systems_hides_nobody(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, put: Callable[..., None]
) -> None:
    """What is left of Bob in a log is found, whatever else quotes him, and wherever."""
    (place.state_dir / "left.log").write_text(f"{BOB}: {SAID}")
    put(place, monkeypatch)
    take_requests(Workspace(place.root), [BOB])
    assert "left.log" in _set_aside(place)


@pytest.mark.parametrize("spelt", ["as it is", "in SQL"])
def test_a_setting_that_quotes_a_text_alone_hides_nobody(
    place: Workspace, tmp_path: Path, spelt: str
) -> None:
    """A query that leaves somebody's rows out names what they said."""
    words = [f"number {i} of what a customer's friend once said quietly to nobody" for i in "12"]
    rows = [
        {"id": f"z{n}", "who": ZOE if n < 2 else f"other-{n}", "what": w, "kind": "good"}
        for n, w in enumerate([*words, *(f"{n} other people said {n}" for n in range(30))])
    ]
    source = str(write_csv(tmp_path / "zoe.csv", rows))
    ingest_source(Workspace(place.root), HELD, source, False, 20_000, True)
    (place.state_dir / "left.log").write_text("\n".join(words))
    place = Workspace(place.root)
    quoted = [w.replace("'", "''") if spelt == "in SQL" else w for w in words]
    query = "SELECT * FROM t WHERE what NOT IN ('{}')".format("', '".join(quoted))  # noqa: S608
    place.config = place.config.model_copy(
        update={"data": place.config.data.model_copy(update={"query": query})}
    )
    take_requests(place, [ZOE])
    assert "left.log" in _set_aside(place)


def _set_aside(place: Workspace) -> str:
    """Erase; what is told of the one request that was found, and is not certified."""
    eraser = Eraser(
        erase_ports(place, HELD), erase_policy(place), lambda: f"plan-{uuid.uuid4().hex[:16]}"
    )
    assert eraser.run() is not None
    (told,) = eraser.uncertified.values()
    return told


def test_an_id_that_looks_like_a_fraction_of_a_second_somewhere_was_not_searched_for_everywhere(
    place: Workspace,
) -> None:
    """Nobody can say whether it is a time, or the number of somebody in a text."""
    (place.state_dir / "a.log").write_text(f"call 1512345678.{NUMBER} about it\n")
    (number,) = take_requests(place, [NUMBER])
    (spaced,) = take_requests(place, [SPACED])
    assert _erase(place)[number.request_id] != "nothing found"
    searched = {
        r.request_id: json.loads(
            base64.b64decode(
                json.loads(place.certificates.path_of(r.request_id).read_bytes())["payload"]
            )
        )["predicate"]["found"]["id_searched"]
        for r in (number, spaced)
    }
    assert searched == {number.request_id: False, spaced.request_id: True}


def _found_again(place: Workspace, who: str) -> bool:
    """Whether one more erasure goes to its end, and finds this person."""
    (request,) = take_requests(Workspace(place.root), [who])
    return _erase(place)[request.request_id] != "nothing found"


@pytest.mark.parametrize("by", [BOB, f"on behalf of {BOB}, the clerk"])
def test_a_person_whom_an_older_ledger_quotes_is_not_certified_in_silence(
    place: Workspace, by: str
) -> None:
    (request,) = take_requests(place, [BOB])
    with access.changing(place):
        place.ledger.append(
            {"type": "approved", "time": place.now(), "by": by, "request": request.request_id}
        )
    assert "s3t.db" in _set_aside(place)


Act = Callable[[Workspace, str, str], object]
BY = [
    ("withdraw", withdraw),
    ("approve", lambda p, r, text: approve(p, [r], text)),
    ("reject", lambda p, r, text: reject(p, r, "other", "a law", text)),
    ("extend", lambda p, r, text: extend(p, r, "many letters", text)),
    ("hold", lambda p, r, text: hold(p, "somebody else", "other", "a law", text)),
    ("release", lambda p, r, text: lift_hold(p, SPACED, text)),
    ("lift", lambda p, r, text: lift(p, ANN, "", text)),
]
REASON = [
    ("reject", lambda p, r, text: reject(p, r, "other", text, "clerk")),
    ("extend", lambda p, r, text: extend(p, r, text, "clerk")),
    ("hold", lambda p, r, text: hold(p, "somebody else", "other", text, "clerk")),
]
ACTS = [pytest.param(act, id=f"by of {name}") for name, act in BY] + [
    pytest.param(act, id=f"reason of {name}") for name, act in REASON
]


def _refused(place: Workspace, act: Act, request: str, text: str) -> None:
    size = place.ledger.head().size
    with pytest.raises(UsageError) as refused:
        act(place, request, text)
    assert text not in str(refused.value) and "nothing was changed" in str(refused.value)
    assert place.ledger.head().size == size


QUOTES = [
    BOB,
    f"({BOB})",
    f"{BOB}'s lawyer",
    f"mail={BOB},x",
    SPACED,
    f"a letter of {SPACED} came",
    NUMBER,
    f"case {NUMBER}.",
    BOB.upper(),
    "BERTA VAN DAM",
    base64.b64encode(BOB.encode()).decode(),
    "bob%40example.org",
    HASHES["sha256"][1](BOB.encode()),
    ANN,
]


@pytest.mark.parametrize("act", ACTS)
def test_free_text_that_quotes_anybody_known_is_refused(place: Workspace, act: Act) -> None:
    (request,) = take_requests(place, ["asks@example.org"])
    hold(place, SPACED, "other", "a law", "clerk")
    for text in [*QUOTES, "asks@example.org"]:
        _refused(place, act, request.request_id, text)


def test_free_text_that_quotes_nobody_is_kept(place: Workspace) -> None:
    first, second, third = take_requests(place, [BOB, "asks@example.org", "also@example.org"])
    approve(place, [first.request_id], "Data protection officer (2nd)")
    withdraw(place, second.request_id, "the clerk of room 12")
    reject(
        place,
        third.request_id,
        "17(3)(e)",
        "article 17(3)(e): claims of 2024, file 88/4711",
        "legal department",
    )
    hold(place, BOB, "other", "law 12.3 of 2019", "legal department")
    lift_hold(place, BOB, "legal department")
    assert _erase(place)[first.request_id] != "nothing found"


def test_who_is_quarantined_or_asked_for_by_a_record_or_a_hash_is_not_quoted(
    place: Workspace, tmp_path: Path
) -> None:
    _ingest(place, tmp_path, BOB, REFUSED)  # the others are in an earlier version alone
    place = Workspace(place.root)
    (record,) = take_requests(place, [BOB], "the-record-1")
    (hashed,) = take_hashed(place, ["sha256:" + HASHES["sha256"][1](b"hash@example.org")])
    for text in (
        f"{REFUSED} wrote",
        SPACED,
        f"{BOB} could not be confirmed",
        "the-record-1 stays",
        "of hash@example.org",
        HASHES["sha256"][1](b"hash@example.org"),
    ):
        for request in (record, hashed):
            _refused(place, BY[2][1], request.request_id, text)
            _refused(place, REASON[0][1], request.request_id, text)
    withdraw(place, hashed.request_id)
    withdraw(place, record.request_id, "clerk")
    assert _found_again(place, BOB)


def test_a_hold_under_a_rule_for_ids_quotes_the_person_in_no_spelling(tmp_path: Path) -> None:
    create_workspace(tmp_path / "w", Config.model_validate({"data": {"id_rule": ["trim"]}}))
    place = Workspace(tmp_path / "w")
    with pytest.raises(UsageError, match="quotes an id"):
        hold(place, f" {BOB}", "other", f"{BOB.upper()} has a claim", "clerk")
    hold(place, f" {BOB}", "other", "has a claim", "clerk")
    with pytest.raises(UsageError, match="quotes an id"):
        hold(place, "another", "other", f"as {BOB} has", "clerk")


def test_a_request_whose_ids_are_lost_is_decided_on_in_plain_words_or_after_it_was_asked_again(
    place: Workspace,
) -> None:
    """Or which a host apart told of and never sealed: nobody is locked out of saying no."""
    (request,) = take_requests(place, [BOB])
    shutil.rmtree(place.state_dir / "needles")
    place = Workspace(place.root)
    for reason, by in ((f"{BOB} asked", "clerk"), ("section 9 of a law", "clerk"), ("a law", "c4")):
        with pytest.raises(UsageError, match="ask again with the same ids"):
            reject(place, request.request_id, "other", reason, by)
        with pytest.raises(UsageError, match="ask again with the same ids"):
            extend(place, request.request_id, reason, by)
    extend(place, request.request_id, "many requests at once", "clerk")
    assert take_requests(place, [BOB])[0].request_id == request.request_id
    reject(place, request.request_id, "other", "section 9 of a law", "clerk")


def test_a_refusal_tells_who_may_not_erase_nothing_of_who_is_in_the_data(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(place.database), "may_erase", lambda _: False)
    (request,) = take_requests(place, ["asks"])
    said = set()
    for text in (BOB, "nobody-at-all@example.org", NUMBER, "100178", "other-3", "others-3"):
        with pytest.raises(UsageError) as refused:
            approve(place, [request.request_id], text)
        said.add(str(refused.value))
    assert len(said) == 1
    for text in (SPACED, "Berta van Damm"):
        approve(place, [request.request_id], text)


def test_where_the_index_cannot_be_read_only_plain_words_are_taken(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise DataError("no index")

    (request,) = take_requests(place, ["asks"])
    monkeypatch.setattr(type(place.datasets.people), "look_up", broken)
    _refused(place, BY[1][1], request.request_id, "somebody@example.org")
    approve(place, [request.request_id], "privacy officer")
