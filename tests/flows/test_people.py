"""Who is meant: nobody is told "erased" of whom nobody was found, and nobody comes back under
another spelling (edges E2 and E3)."""

import hashlib
import json
import re
import shutil
import unicodedata
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.cli.telling import render_beside
from flows.prefect_flows.erase import erase
from flows.use_cases.finding import (
    erased_in,
    erased_of,
    look_alikes,
    look_up,
    look_up_hashed,
    spelt,
)
from flows.use_cases.ingesting import ingest_source
from flows.use_cases.requests import hold, lift, lift_hold, list_requests
from flows.use_cases.taking import take_hashed, take_requests
from flows.use_cases.verifying import verify_path
from flows.workspace.composing import erase_policy, erase_ports
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.domain import HELD_OUT
from s3t_core.erasure.executor import Eraser
from s3t_core.erasure.plan import ErasurePlan
from s3t_core.errors import DataError, GuaranteeError, ResidueFound, UsageError
from s3t_core.identity import folded, form_of
from s3t_core.identity_index import IDENTITY_PATH, read_index
from s3t_core.ports import Target
from s3t_core.records import Row, subject_digest
from s3t_core.slicefile import is_slice_file, read_rows, write_rows
from tests.flows.conftest import tiny_config, write_csv
from tests.held import HELD

Make = Callable[..., Workspace]
ANN, BOB, NUMBER = "Ann.1@Example.org", "bob@example.org", "1001"
"""As the source spells them."""


def _source(folder: Path, *spellings: str, first: int = 0) -> str:
    """Two rows of each, beside ten people whom nobody asks for."""
    ids = [*spellings, *(f"other-{i}" for i in range(10))]
    rows = [
        {
            "id": f"r{first + n}-{i}",
            "who": who,
            "what": f"w{n} w{i} and more",
            "kind": ["good", "bad"][i],
        }
        for n, who in enumerate(ids)
        for i in range(2)
    ]
    return str(write_csv(folder / "people.csv", rows))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """To be read only."""
    folder = tmp_path_factory.mktemp("people")
    place = create_workspace(folder / "w", tiny_config(folder / "no backbone"), b"\x05" * 32)
    _ingest(place, _source(folder, ANN, BOB, NUMBER))
    return Workspace(place.root)


@pytest.fixture
def place(made: Workspace, tmp_path: Path) -> Workspace:
    """The same, to be changed."""
    shutil.copytree(made.root, tmp_path / "w", symlinks=True)
    return Workspace(tmp_path / "w")


def _ingest(
    place: Workspace, source: str, append: bool = False, anyway: bool = False
) -> dict[str, Any]:
    return asdict(ingest_source(Workspace(place.root), HELD, source, append, 20_000, anyway))


def _erase(place: Workspace) -> dict[str, Any]:
    """All that is pending, without the flow around it."""
    place = Workspace(place.root)
    eraser = Eraser(
        erase_ports(place, HELD), erase_policy(place), lambda: f"plan-{uuid.uuid4().hex[:16]}"
    )
    plan = eraser.run()
    assert plan is not None
    if eraser.uncertified:
        raise ResidueFound("; ".join(eraser.uncertified.values()))
    outcomes = place.ledger.state().outcomes
    return {
        "certificates": [
            {"request": r, "outcome": outcomes[r][0], "rows": outcomes[r][1]} for r in plan.requests
        ],
        "ids_lost": sum(eraser.ids_lost),
    }


def _found(place: Workspace, given: str) -> tuple[str, str]:
    finding = look_up(place, spelt(place, [given]))[given]
    return finding.found, next(iter(finding.near), "")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (ANN, ("in the data", "")),
        (BOB, ("in the data", "")),
        ("nobody@example.org", ("nobody", "")),
        ("Bob@Example.org ", ("nearly", BOB)),
        ("\u200bbob@example.org", ("nearly", BOB)),
        ("1001.0", ("nearly", "1001")),
        (" 1001", ("nearly", "1001")),
        ("\uff42\uff4f\uff42@example.org", ("nearly", BOB)),
        ("ann.1@example.org", ("nearly", "")),
        ("who", ("nobody", "")),
    ],
)
def test_who_asks_is_told_at_once_whether_somebody_has_the_id(
    made: Workspace, given: str, found: tuple[str, str]
) -> None:
    assert _found(made, given) == found


def test_a_near_match_is_named_where_it_can_be_guessed(place: Workspace, tmp_path: Path) -> None:
    _ingest(place, _source(tmp_path, "2002.0", "ANNA", "Straße"))
    assert [_found(Workspace(place.root), given) for given in ("2002", "anna", "STRASSE")] == [
        ("nearly", "2002.0"),
        ("nearly", "ANNA"),
        ("nearly", ""),
    ]


PETRA = ("Petra.Wagner@x.org", "PETRA.WAGNER@X.ORG", "petra.wagner@x.org", "pEtra.wagner@x.org")


@pytest.fixture
def spellings(place: Workspace, tmp_path: Path) -> Workspace:
    """Four people to the system, maybe one to the world; of the last nobody can guess how it is
    spelt."""
    _ingest(place, _source(tmp_path, *PETRA, BOB), anyway=True)
    return Workspace(place.root)


def test_a_request_beside_an_erase_run_is_taken_whatever_that_removes(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether somebody is in the data is asked without the lock: a sweep may take what was
    brought of earlier versions."""

    def swept(*_: object) -> None:
        raise FileNotFoundError(2, "gone", "data-x/0123")

    monkeypatch.setattr("flows.use_cases.finding._indexed", swept)
    finding = look_up(place, {BOB: BOB})[BOB]
    assert finding.found == "not told" and "data-x" not in finding.why


def test_who_has_the_id_is_told_with_how_many_others_are_spelt_nearly_so(
    spellings: Workspace,
) -> None:
    finding = look_up(spellings, {PETRA[0]: PETRA[0], BOB: BOB})
    assert (finding[PETRA[0]].found, finding[PETRA[0]].others) == ("in the data", 3)
    assert sorted(finding[PETRA[0]].near) == sorted(PETRA[1:3])
    assert (finding[BOB].found, finding[BOB].others) == ("in the data", 0)


def test_all_near_spellings_are_named_that_can_be_guessed_where_nobody_has_the_id(
    spellings: Workspace,
) -> None:
    finding = look_up(spellings, {" petra.wagner@x.org": " petra.wagner@x.org"})[
        " petra.wagner@x.org"
    ]
    assert (finding.found, finding.others) == ("nearly", 4)
    assert sorted(finding.near) == sorted(PETRA[1:3])


def test_another_spelling_that_is_asked_for_too_does_not_stay(spellings: Workspace) -> None:
    take_requests(spellings, list(PETRA[:3]))
    finding = look_up(spellings, {PETRA[0]: PETRA[0]})[PETRA[0]]
    assert (finding.near, finding.others) == ((), 1)


def test_another_spelling_that_only_an_earlier_version_or_quarantine_has_is_told_of(
    place: Workspace, tmp_path: Path
) -> None:
    source = Path(_source(tmp_path, ANN, BOB.upper(), NUMBER))
    source.write_text(source.read_text() + f"x1,{NUMBER}.0,a text,neither\n")
    _ingest(place, str(source))
    place = Workspace(place.root)
    assert [look_up(place, {who: who})[who].near for who in (BOB.upper(), NUMBER)] == [
        (BOB,),
        (f"{NUMBER}.0",),
    ]


def test_under_the_exact_rule_no_other_spelling_is_the_same_person(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place(data={"id_rule": ["exact"]})
    _ingest(place, _source(tmp_path, "Ab", "aB"))
    place = Workspace(place.root)
    assert look_up(place, {"Ab": "Ab"})["Ab"].others == 0 and _found(place, "ab")[0] == "nearly"


def test_who_was_erased_before_is_told_by_which_request_and_when(place: Workspace) -> None:
    (request,) = take_requests(place, [ANN])
    _erase(place)
    place = Workspace(place.root)
    finding = look_up(place, {ANN: ANN, "nobody": "nobody"})
    gone = finding[ANN].erased
    assert finding[ANN].found == "nobody" and gone is not None and finding["nobody"].erased is None
    assert (gone.request, gone.time[:10]) == (request.request_id, place.now()[:10])
    again, nobody = take_requests(place, [ANN, "nobody"])
    _erase(place)
    state = Workspace(place.root).ledger.state()
    assert erased_of(erased_in(state), state.requests[again.request_id]) == gone
    assert (
        erased_of(erased_in(state), state.requests[nobody.request_id]) is None
    )  # who found nobody erased nobody


def test_who_asks_while_an_erasure_is_open_is_not_told_that_nobody_is_there(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their rows are gone from the data, and it has not ended: that nobody has the id would send
    the person away."""
    (request,) = take_requests(place, [ANN])
    with monkeypatch.context() as patched, pytest.raises(OSError, match="full"):
        patched.setattr(Eraser, "run_step", _until("measure", Eraser.run_step))
        _erase(place)
    place = Workspace(place.root)
    finding = look_up(place, {ANN: ANN, BOB: BOB, "nobody": "nobody"})
    assert {each: f.found for each, f in finding.items()} == {
        ANN: "not told",
        BOB: "in the data",
        "nobody": "nobody",
    }
    assert "erasure that has begun" in finding[ANN].why
    assert [r.request_id for r in take_requests(place, [ANN])] == [request.request_id]
    _erase(place)
    assert look_up(Workspace(place.root), {ANN: ANN})[ANN].erased is not None


def _until(last: str, run_step: Callable[..., None]) -> Callable[..., None]:
    """The steps of an erasure, to that one."""

    def run(eraser: Eraser, step: str, plan: ErasurePlan) -> None:
        if step == last:
            raise OSError(28, "the disk is full")
        run_step(eraser, step, plan)

    return run


def test_who_was_erased_by_hash_or_of_whom_a_record_was_is_told_so_too(place: Workspace) -> None:
    (by_hash,) = take_hashed(place, _hashed(ANN))
    (record,) = take_requests(place, [BOB], "r1-0")
    _erase(place)
    place = Workspace(place.root)
    gone = look_up(place, {ANN: ANN})[ANN].erased
    assert gone is not None and gone.request == by_hash.request_id
    again, other = take_requests(place, [BOB], "r1-0")[0], take_requests(place, [BOB], "r1-1")[0]
    state = place.ledger.state()
    told = [erased_of(erased_in(state), state.requests[r.request_id]) for r in (again, other)]
    assert told[0] is not None and told[0].request == record.request_id and told[1] is None


def test_who_asks_by_hash_is_told_whether_somebody_has_it(place: Workspace, tmp_path: Path) -> None:
    source = Path(_source(tmp_path, BOB, NUMBER))  # so that ANN is only in the earlier version
    source.write_text(source.read_text() + "x1,Zoe@Example.org,a text,neither\n")
    _ingest(place, str(source))
    asked = [
        *_hashed(ANN),
        *_hashed(ANN.lower()),
        *_hashed("zoe@example.org", "md5"),
        *_hashed("nobody"),
    ]
    told = look_up_hashed(Workspace(place.root), asked)
    assert [told[each].found for each in asked] == ["in the data"] * 3 + ["nobody"]


def test_who_looks_alike_is_known_of_open_requests_until_their_ids_are_gone(
    spellings: Workspace,
) -> None:
    taken = take_requests(spellings, [PETRA[0], " Petra.Wagner@X.org", "nobody", BOB])
    found = look_alikes(spellings, taken)
    assert [len(found[r.request_id]) for r in taken] == [3, 4, 0, 0]
    assert (
        look_alikes(
            spellings,
            [*take_hashed(spellings, _hashed(BOB)), *take_requests(spellings, [BOB], "r1")],
        )
        == {}
    )
    spellings.needles.destroy("", [taken[0].request_id])
    assert look_alikes(spellings, taken[:1]) == {}


def test_no_id_and_no_hash_of_one_stands_in_the_index(made: Workspace) -> None:
    index = made.root / "data" / IDENTITY_PATH
    cells = json.dumps(read_index(index).to_pydict()).encode()
    for each in (index.read_bytes(), cells):
        for raw in (ANN, BOB, folded(ANN)):
            for told in (
                raw,
                *(hashlib.new(h, raw.encode()).hexdigest() for h in ("sha256", "sha1", "md5")),
            ):
                assert told.encode() not in each


def test_the_index_is_erased_with_the_person_and_answers_no_more(place: Workspace) -> None:
    digests = {who: subject_digest(place.keys, who) for who in (ANN, BOB)}
    before = place.ledger.state().dataset
    assert before is not None and before.identities is not None
    take_requests(place, [ANN])
    done = _erase(place)
    assert [c["outcome"] for c in done["certificates"]] == ["not trained on yet"]
    place = Workspace(place.root)
    index = set(read_index(place.root / "data" / IDENTITY_PATH).column("subject").to_pylist())
    assert digests[ANN] not in index and digests[BOB] in index
    assert _found(place, ANN) == ("nobody", "")
    assert before.identities.md5 in place.ledger.state().destroyed_objects
    assert place.datasets.repository.stored([before.identities.md5]) == set()


def test_an_index_that_the_remote_alone_keeps_is_erased_too(place: Workspace) -> None:
    """What is in the cache is found there by what it says; what is not is known by the version."""
    before = place.ledger.state().dataset
    assert before is not None and before.identities is not None
    md5 = before.identities.md5
    (place.datasets.repository.cache / md5[:2] / md5[2:]).unlink()
    assert place.datasets.repository.stored([md5]) == {md5}
    take_requests(place, [ANN])
    _erase(place)
    assert Workspace(place.root).datasets.repository.stored([md5]) == set()


def test_an_index_that_an_erasure_left_stops_the_certificate(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.adapters.datasets import rewriting

    take_requests(place, [ANN])
    monkeypatch.setattr(rewriting, "remaining", lambda index, *_: index)
    with pytest.raises(ResidueFound):
        _erase(place)
    assert not list(place.certificates_dir.glob("*.json"))
    monkeypatch.undo()
    with pytest.raises(
        ResidueFound
    ):  # the step that rewrites is done: the file is the operator's to put right
        _erase(place)


def test_another_index_than_the_recorded_one_tells_nothing(place: Workspace) -> None:
    path = place.root / "data" / IDENTITY_PATH
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])
    finding = look_up(place, {ANN: ANN})[ANN]
    assert finding.found == "not told" and IDENTITY_PATH in finding.why
    take_hashed(place, ["md5:" + hashlib.md5(b"x", usedforsecurity=False).hexdigest()])
    with pytest.raises(GuaranteeError, match=IDENTITY_PATH):
        _erase(place)
    assert not list(place.certificates_dir.glob("*.json"))


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    ("algorithm", "spelling"), [("sha256", ANN), ("sha1", ANN.lower()), ("md5", ANN)]
)
def test_a_hash_finds_whose_id_it_is_of_and_the_certificate_says_what_it_could_not_search(
    place: Workspace, algorithm: str, spelling: str
) -> None:
    digits = hashlib.new(algorithm, spelling.encode()).hexdigest()
    (request,) = take_hashed(
        place, [f"{algorithm.upper()}:{digits.upper()}", f"{algorithm}:{digits}"]
    )
    done = _erase(place)
    assert [(c["outcome"], c["rows"]) for c in done["certificates"]] == [("not trained on yet", 2)]
    assert done["ids_lost"] == 1
    predicate = verify_path(place.certificates_dir, place.keys_dir / "signing.pub")
    assert predicate["valid"]
    found = _predicate(place, request.request_id)
    assert found["subject"]["asked_by"] == algorithm and not found["found"]["id_searched"]
    assert _found(Workspace(place.root), ANN)[0] == "nobody"


def test_a_hash_of_nobody_keeps_out_who_has_it_later(place: Workspace, tmp_path: Path) -> None:
    digits = hashlib.sha256(b"eve@example.org").hexdigest()
    take_hashed(place, [f"sha256:{digits}"])
    assert [c["outcome"] for c in _erase(place)["certificates"]] == ["nothing found"]
    again = _ingest(place, _source(tmp_path, ANN, BOB, NUMBER, "Eve@example.org "))
    assert (
        again["suppressed"] == 2
        and _found(Workspace(place.root), "Eve@example.org ")[0] == "nobody"
    )
    with pytest.raises(UsageError, match=r"one, as it was spelt when it was erased; nothing"):
        lift(Workspace(place.root), "Eve@example.org ", "", "clerk")
    lift(Workspace(place.root), "eve@example.org", "", "clerk")
    assert (
        _ingest(place, _source(tmp_path, ANN, BOB, NUMBER, "Eve@example.org "))["suppressed"] == 0
    )


def test_a_hash_of_nobody_keeps_out_the_very_id_that_it_is_of(
    place: Workspace, tmp_path: Path
) -> None:
    take_hashed(place, _hashed("Eve@example.org"))
    assert [c["outcome"] for c in _erase(place)["certificates"]] == ["nothing found"]
    assert _ingest(place, _source(tmp_path, ANN, BOB, NUMBER, "Eve@example.org"))["suppressed"] == 2


def _hashed(given: str, algorithm: str = "sha256") -> list[str]:
    return [f"{algorithm}:{hashlib.new(algorithm, given.encode()).hexdigest()}"]


def test_who_comes_between_a_request_by_hash_and_its_erasure_is_found(
    place: Workspace, tmp_path: Path
) -> None:
    take_hashed(place, _hashed("eve@example.org"))
    _ingest(place, _source(tmp_path, ANN, BOB, NUMBER, "eve@example.org"))
    assert [(c["outcome"], c["rows"]) for c in _erase(place)["certificates"]] == [
        ("not trained on yet", 2)
    ]
    assert _found(Workspace(place.root), "eve@example.org")[0] == "nobody"


def test_where_each_spelling_is_another_person_a_hash_keeps_nobody_else_out(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place(data={"id_rule": ["exact"]})
    source = _source(tmp_path, "Bob", "bob", ANN)
    _ingest(place, source)
    digest = hashlib.sha256(b"Bob").hexdigest()
    take_hashed(Workspace(place.root), [f"sha256:{digest}"])
    assert [c["rows"] for c in _erase(place)["certificates"]] == [2]
    again = _ingest(place, source, anyway=True)
    assert (again["suppressed"], again["nearly"]) == (2, 0)
    assert _found(Workspace(place.root), "bob")[0] == "in the data"


def test_who_is_quarantined_is_found_by_hash(place: Workspace, tmp_path: Path) -> None:
    source = Path(_source(tmp_path, ANN, BOB, NUMBER))
    source.write_text(
        source.read_text() + "x1,Zoe@Example.org,a text that nobody else has,neither\n"
    )
    _ingest(place, str(source))
    take_hashed(place, _hashed("zoe@example.org"))
    assert [c["rows"] for c in _erase(place)["certificates"]] == [1]
    assert "nobody else has" not in (place.state_dir / "quarantine" / "rows.jsonl").read_text()


def test_a_hash_means_who_has_it_as_it_is_before_anybody_whose_id_it_is_of_in_lower_case(
    place: Workspace, tmp_path: Path
) -> None:
    _ingest(
        place,
        _source(
            tmp_path,
            "ann@x.org",
            "Ann@X.org",
            "Straße@x.de",
            "strasse@x.de",
            "1001.0",
            "1001",
            "Weiß@X.de",
        ),
        anyway=True,
    )
    place = Workspace(place.root)
    for given in ("ann@x.org", "strasse@x.de", "1001", "weiß@x.de"):
        take_hashed(place, _hashed(given))
    assert [c["rows"] for c in _erase(place)["certificates"]] == [2] * 4
    place = Workspace(place.root)
    assert [
        _found(place, who)[0] for who in ("Ann@X.org", "Straße@x.de", "1001.0", "Weiß@X.de")
    ] == ["in the data", "in the data", "in the data", "nobody"]


def test_under_the_exact_rule_a_hash_means_the_very_id(make_place: Make, tmp_path: Path) -> None:
    place = make_place(data={"id_rule": ["exact"]})
    _ingest(place, _source(tmp_path, "Ann@x.org"))
    take_hashed(place, _hashed("ann@x.org"))
    assert [c["outcome"] for c in _erase(place)["certificates"]] == ["nothing found"]


@pytest.mark.long_but_first
@pytest.mark.parametrize("spelling", [ANN.upper(), f"{ANN} ", ANN.lower()])
def test_who_was_erased_by_hash_does_not_come_back_under_another_spelling(
    place: Workspace, tmp_path: Path, spelling: str
) -> None:
    take_hashed(place, _hashed(ANN))
    _erase(place)
    assert _ingest(place, _source(tmp_path, BOB, NUMBER, spelling))["suppressed"] == 2
    with pytest.raises(UsageError, match="lift that one"):
        lift(Workspace(place.root), spelling, "", "clerk")
    lift(Workspace(place.root), ANN, "", "clerk")
    assert _ingest(place, _source(tmp_path, BOB, NUMBER, spelling))["suppressed"] == 0


def test_a_hold_keeps_who_is_asked_for_by_a_hash(place: Workspace) -> None:
    take_hashed(place, _hashed(ANN))
    hold(place, ANN, "other", "a law", "clerk")
    eraser = Eraser(erase_ports(place, HELD), erase_policy(place), lambda: "plan-0")
    assert eraser.run() is None
    lift_hold(place, ANN, "clerk")
    assert [c["rows"] for c in _erase(place)["certificates"]] == [2]


@pytest.mark.parametrize("told", ["request", "hold"])
def test_another_rule_comes_not_while_somebody_was_told_by_the_one_there_is(
    place: Workspace, tmp_path: Path, told: str
) -> None:
    if told == "hold":
        hold(place, ANN, "other", "a law", "clerk")
    else:
        take_requests(place, [ANN])
    settings = place.root / "s3t.toml"
    settings.write_text(settings.read_text().replace("id_rule = []", 'id_rule = ["case"]'))
    with pytest.raises(UsageError, match="a request or a hold that is open"):
        _ingest(place, _source(tmp_path, ANN, BOB, NUMBER), anyway=True)


def test_before_the_first_data_too(make_place: Make, tmp_path: Path) -> None:
    place = make_place()
    take_requests(place, [ANN])
    settings = place.root / "s3t.toml"
    settings.write_text(settings.read_text().replace("id_rule = []", 'id_rule = ["case"]'))
    with pytest.raises(UsageError, match="a request or a hold that is open"):
        _ingest(place, _source(tmp_path, ANN))


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    ("first", "then"), [("[]", '["case"]'), ('["exact"]', '["case"]'), ('["case"]', '["exact"]')]
)
def test_who_was_erased_under_one_rule_stays_out_under_another_and_can_be_lifted(
    make_place: Make, tmp_path: Path, first: str, then: str
) -> None:
    place = make_place(data={"id_rule": json.loads(first)})
    source = _source(tmp_path, ANN, BOB)
    _ingest(place, source)
    take_requests(Workspace(place.root), [ANN])
    _erase(place)
    settings = place.root / "s3t.toml"
    settings.write_text(settings.read_text().replace(f"id_rule = {first}", f"id_rule = {then}"))
    assert _ingest(place, source, anyway=True)["suppressed"] == 2
    lift(Workspace(place.root), ANN, "", "clerk")
    assert _ingest(place, source, anyway=True)["suppressed"] == 0


def test_an_erased_records_text_comes_not_into_quarantine_under_another_spelling(
    place: Workspace, tmp_path: Path
) -> None:
    take_requests(place, [BOB], "r1-0")
    _erase(place)
    source = Path(_source(tmp_path, ANN, NUMBER))
    source.write_text(source.read_text() + f",{BOB.upper()},what the erased record said,good\n")
    _ingest(place, str(source))
    quarantine = place.state_dir / "quarantine" / "rows.jsonl"
    assert not quarantine.exists() or "erased record said" not in quarantine.read_text()


def test_every_spelling_that_was_asked_for_is_searched(make_place: Make, tmp_path: Path) -> None:
    place = make_place(data={"id_rule": ["case"]})
    _ingest(place, _source(tmp_path, ANN))
    place = Workspace(place.root)
    (request,) = take_requests(place, [ANN, ANN.upper()])
    assert take_requests(place, [ANN.swapcase()])[0].request_id == request.request_id
    assert sorted(place.needles.ids_of(request.request_id)) == sorted(
        [ANN, ANN.lower(), ANN.upper(), ANN.swapcase()]
    )


@pytest.mark.parametrize(
    "wrong", ["", "sha256:", "sha256:12", "sha512:" + "a" * 128, "md5:" + "g" * 32, "a" * 64]
)
def test_what_is_no_hash_of_an_id_is_refused_without_quoting_it(
    made: Workspace, wrong: str
) -> None:
    with pytest.raises(UsageError, match="expected a hashed id") as refused:
        take_hashed(made, [wrong])
    assert (
        not wrong
        or wrong.partition(":")[2] == ""
        or wrong.partition(":")[2] not in str(refused.value)
    )


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    "spelling", ["1001.0", " 1001 ", "1001.", "\ufeff1001", "\uff11\uff10\uff10\uff11"]
)
def test_an_erased_person_does_not_come_back_under_another_spelling(
    place: Workspace, tmp_path: Path, spelling: str
) -> None:
    take_requests(place, [NUMBER])
    _erase(place)
    back = _ingest(place, _source(tmp_path, ANN, BOB, spelling))
    assert (back["suppressed"], back["nearly"]) == (2, 2)
    with pytest.raises(UsageError, match=r"lift that one, as it was(?!.*1001)"):
        lift(Workspace(place.root), spelling, "", "clerk")
    lift(Workspace(place.root), NUMBER, "", "clerk")
    assert _ingest(place, _source(tmp_path, ANN, BOB, spelling))["suppressed"] == 0


@pytest.mark.parametrize("record", ["", "r1-0"])
def test_a_request_that_found_nobody_keeps_out_the_very_id_and_none_that_is_spelt_nearly_so(
    place: Workspace, tmp_path: Path, record: str
) -> None:
    """Whose id is spelt nearly like a misspelt one never asked."""
    take_requests(place, [BOB.upper()], record)
    assert [c["outcome"] for c in _erase(place)["certificates"]] == ["nothing found"]
    again = _ingest(place, _source(tmp_path, ANN, BOB, BOB.upper(), NUMBER))
    assert (again["suppressed"], again["nearly"]) == (0 if record else 2, 0)
    assert _found(Workspace(place.root), BOB)[0] == "in the data"


@pytest.mark.long_but_first
@pytest.mark.parametrize("rule", ["[]", '["exact"]'])
@pytest.mark.parametrize("given", [BOB, BOB.upper()])
def test_the_very_id_that_found_nobody_stays_out_under_another_rule_too(
    make_place: Make, tmp_path: Path, given: str, rule: str
) -> None:
    place = make_place(data={"id_rule": json.loads(rule)})
    _ingest(place, _source(tmp_path, ANN))
    take_requests(Workspace(place.root), [given])
    assert [c["outcome"] for c in _erase(place)["certificates"]] == ["nothing found"]
    settings = place.root / "s3t.toml"
    settings.write_text(settings.read_text().replace(f"id_rule = {rule}", 'id_rule = ["case"]'))
    assert _ingest(place, _source(tmp_path, ANN, given), anyway=True)["suppressed"] == 2
    lift(Workspace(place.root), given, "", "clerk")
    assert _ingest(place, _source(tmp_path, ANN, given), anyway=True)["suppressed"] == 0


def test_a_misspelt_request_beside_the_right_one_weakens_nothing(
    place: Workspace, tmp_path: Path
) -> None:
    take_requests(place, [BOB, BOB.upper()])
    assert sorted(c["rows"] for c in _erase(place)["certificates"]) == [0, 2]
    take_requests(Workspace(place.root), [BOB])  # asked again, it finds nothing new
    _erase(place)
    assert _ingest(place, _source(tmp_path, ANN, NUMBER, BOB.title()))["suppressed"] == 2


def test_an_erased_record_does_not_come_back_under_another_spelling(
    place: Workspace, tmp_path: Path
) -> None:
    take_requests(place, [BOB], "r1-0")
    _erase(place)
    back = _ingest(place, _source(tmp_path, ANN, BOB.upper(), NUMBER))
    assert (back["suppressed"], back["nearly"]) == (1, 1)
    assert (
        _found(Workspace(place.root), BOB.upper())[0] == "in the data"
    )  # of whom other records are there


def test_another_person_whose_id_looks_like_an_erased_ones_is_let_in_by_the_exact_rule(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place(data={"id_rule": ["exact"]})
    _ingest(place, _source(tmp_path, "Ab", "aB"))
    take_requests(place, ["Ab"])
    _erase(place)
    again = _ingest(place, _source(tmp_path, "Ab", "aB"))
    assert (again["suppressed"], again["nearly"]) == (2, 0) and _found(Workspace(place.root), "aB")[
        0
    ] == "in the data"


def test_one_rule_holds_at_ingest_and_at_request(make_place: Make, tmp_path: Path) -> None:
    place = make_place(data={"id_rule": ["case", "trim", "integer", "unicode"]})
    report = _ingest(
        place,
        _source(
            tmp_path,
            ANN,
            ANN.upper() + " ",
            "1001.0",
            "1001",
            unicodedata.normalize("NFD", "josé"),
            "josé",
            first=0,
        ),
    )
    assert report["subjects"] == 13 and report["suppressed"] == 0
    place = Workspace(place.root)
    assert {
        _found(place, given)[0] for given in (ANN, ANN.lower(), "1001", "1001.0", "JOSÉ\u200b")
    } == {"in the data"}
    one, same = take_requests(place, [ANN])[0], take_requests(place, [f" {ANN.swapcase()}"])[0]
    assert one.request_id == same.request_id
    assert hold(place, ANN.lower(), "other", "a law", "clerk") == 1
    lift_hold(place, ANN.upper(), "clerk")
    assert [c["rows"] for c in _erase(place)["certificates"]] == [4]
    lift(Workspace(place.root), ANN.swapcase(), "", "clerk")
    with pytest.raises(UsageError, match="of which something is left"):
        take_requests(place, ["  "])


JOSE = "jos\u00e9.4711@example.org"


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    ("asked", "in_the_data", "left"),
    [
        (ANN.lower(), ANN, ANN),
        (ANN.upper(), ANN.lower(), ANN),
        (JOSE, JOSE.title(), unicodedata.normalize("NFD", JOSE.title())),
        (f" {JOSE.upper()}", JOSE, "\u200b".join(JOSE)),
    ],
)
def test_under_a_rule_nothing_is_left_in_a_spelling_that_nobody_asked_by(
    make_place: Make, tmp_path: Path, asked: str, in_the_data: str, left: str
) -> None:
    """Somebody's note spells the id as the source did, whoever asked wrote it otherwise."""
    place = make_place(data={"id_rule": ["trim", "unicode", "case"]})
    _ingest(place, _source(tmp_path, in_the_data, BOB))
    place = Workspace(place.root)
    (request,) = take_requests(place, [asked])
    note = place.state_dir / "notes.txt"
    note.write_text(f"a call of {left}\n")
    with pytest.raises(ResidueFound, match=r"notes\.txt"):
        _erase(place)
    assert request.request_id not in Workspace(place.root).ledger.state().certified
    note.write_text(f"a call of {BOB}\n")
    assert [c["rows"] for c in _erase(place)["certificates"]] == [2]
    found = _predicate(place, request.request_id)["found"]
    assert found["id_searched"] is True


@pytest.mark.parametrize("setting", ['query = "{}"', 'model = "/nowhere/{}"'])
def test_who_is_quoted_by_a_setting_in_another_spelling_is_not_hidden_by_it(
    make_place: Make, tmp_path: Path, setting: str
) -> None:
    """What stands in the settings is written anyway, but for whom they quote."""
    place = make_place(data={"id_rule": ["case"]})
    _ingest(place, _source(tmp_path, ANN, BOB))
    name, settings = setting.partition(" ")[0], place.root / "s3t.toml"
    said = re.sub(f"(?m)^{name} = .*$", setting.format(ANN.swapcase()), settings.read_text())
    assert ANN.swapcase() in said
    settings.write_text(said)
    place = Workspace(place.root)
    (place.state_dir / "notes.txt").write_text(f"a call of {ANN}\n")
    take_requests(place, [ANN.lower()])
    with pytest.raises(ResidueFound, match=r"notes\.txt, s3t\.toml"):
        _erase(place)


def test_hashes_of_what_the_source_had_and_of_what_the_rule_made_of_it_find_the_person(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place(data={"id_rule": ["trim", "case"]})
    _ingest(place, _source(tmp_path, " Ann "))
    place = Workspace(place.root)
    wanted = subject_digest(place.keys, "ann")
    for spelling in (" Ann ", "ann"):
        form = form_of(place.keys, "sha256", hashlib.sha256(spelling.encode()).hexdigest())
        state = place.ledger.state()
        assert place.datasets.people.look_up(
            state.datasets, set(), set(), {form}, earlier=True
        ).subjects_by_form == {form: {wanted}}


def test_another_rule_places_nobody_anew_in_silence(place: Workspace, tmp_path: Path) -> None:
    settings = place.root / "s3t.toml"
    settings.write_text(settings.read_text().replace("id_rule = []", 'id_rule = ["case"]'))
    source = _source(tmp_path, ANN, ANN.upper(), BOB)
    with pytest.raises(UsageError, match=r"id_rule = \[\] in s3t.toml.*--yes"):
        _ingest(place, source)
    with pytest.raises(UsageError, match="without --append"):
        _ingest(place, source, append=True)
    assert _found(Workspace(place.root), ANN.lower()) == (
        "nearly",
        "",
    )  # the data still stands under its own rule
    assert _ingest(place, source, anyway=True)["subjects"] == 12
    assert _found(Workspace(place.root), ANN.lower()) == ("in the data", "")


@pytest.mark.long_but_first
@pytest.mark.parametrize("change", ["rule", "subject", "record", "encoding"])
def test_earlier_data_that_names_people_otherwise_goes_with_the_next_erasure(
    place: Workspace, tmp_path: Path, change: str
) -> None:
    """Nobody can say whose rows it holds: the digests of its people are made of other columns, or
    by another rule."""
    before, settings = place.ledger.state().dataset, place.root / "s3t.toml"
    assert before is not None
    old, new = {
        "rule": ("id_rule = []", 'id_rule = ["case"]'),
        "subject": ('subject = "who"', 'subject = "uid"'),
        "record": ('record = "id"', 'record = "nr"'),
        "encoding": ('encoding = ""', 'encoding = "cp1252"'),
    }[change]
    split = 'held_out_by = "uid"' if change == "subject" else 'held_out_by = "who"'
    settings.write_text(
        settings.read_text().replace(old, new).replace('held_out_by = "who"', split)
    )
    source = Path(_source(tmp_path, ANN, BOB))
    head, rest = source.read_text().split("\n", 1)
    source.write_text(
        head.replace(*{"subject": ("who", "uid"), "record": ("id", "nr")}.get(change, ("", "")))
        + "\n"
        + rest
    )
    with pytest.raises(UsageError, match="who was erased is known by the ids of then"):
        _ingest(place, str(source))
    with pytest.raises(UsageError, match="without --append"):
        _ingest(place, str(source), append=True)
    _ingest(place, str(source), anyway=True)
    place = Workspace(place.root)
    said = "w0 w0 and more"  # only ANN's
    assert _holding(place, said)
    take_requests(place, [ANN])
    eraser = Eraser(
        erase_ports(place, HELD), erase_policy(place), lambda: f"plan-{uuid.uuid4().hex[:16]}"
    )
    now = place.ledger.state().dataset
    assert now is not None and not before.says_who_as(now)
    changed = {
        v.digest: v.md5 for v in before.row_files() if v.md5 not in {f.md5 for f in now.files()}
    }
    found = place.datasets.find(
        [Target("r", subject_digest(place.keys, spelt(place, [ANN])[ANN]), "")],
        place.ledger.state().datasets,
        set(),
    )
    assert changed.keys() <= found.tainted  # so every stage that saw them goes
    assert set(changed.values()) <= found.objects
    eraser.run()
    assert not _holding(place, said)


QUOTED = "a long story that both of them tell word for word"


def _put_beside_the_objects(place: Workspace, row: Row) -> None:
    write_rows(place.root / ".dvc" / "cache" / "made.parquet", [row])


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    "whose", ["of somebody in the data", "of somebody of an earlier version", "of nobody known"]
)
def test_a_text_of_the_erased_in_a_row_of_nobody_known_stops_the_certificate(
    place: Workspace, tmp_path: Path, whose: str
) -> None:
    """A file that the ledger does not know may be of another time, when the erased one had another
    digest; others who said the same keep their rows."""

    def tell(*names: str) -> None:
        rows = [
            {"id": f"q{n}-{i}", "who": who, "what": what, "kind": ["good", "bad"][i]}
            for n, who in enumerate((*names, *(f"other-{i}" for i in range(10))))
            for i in range(2)
            for what in [QUOTED if who in names else f"what {who} had to tell"]
        ]
        _ingest(place, str(write_csv(tmp_path / "more.csv", rows)), anyway=True)

    tell(BOB, "gone-by-now", "other-99")
    tell(BOB, "other-99")
    who = {
        "of somebody in the data": "other-99",
        "of somebody of an earlier version": "gone-by-now",
        "of nobody known": "somebody",
    }[whose]
    _put_beside_the_objects(place, Row("0" * 64, subject_digest(place.keys, who), QUOTED, "good"))
    take_requests(Workspace(place.root), [BOB])
    if who == "somebody":
        with pytest.raises(ResidueFound, match=r"\.dvc/cache"):
            _erase(place)
    else:
        done = _erase(place)["certificates"][0]
        assert done["rows"] == 2 and Workspace(place.root).ledger.state().certified


def _holding(place: Workspace, text: str) -> list[Path]:
    files = [
        p
        for folder in (
            place.root / "data",
            place.datasets.repository.cache,
            place.state_dir / "remote",
        )
        for p in folder.rglob("*")
        if p.is_file() and is_slice_file(p)
    ]
    return [p for p in files if any(r.text == text for r in read_rows(p))]


@pytest.mark.parametrize("waiting", ["request", "hold"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('record = "id"', 'record = "who"'),
        ('encoding = ""', 'encoding = "windows-1252"'),
    ],
)
def test_columns_of_ids_stay_while_somebody_was_told_by_them(
    place: Workspace, tmp_path: Path, waiting: str, old: str, new: str
) -> None:
    take_requests(place, [ANN]) if waiting == "request" else hold(
        place, ANN, "other", "a law", "clerk"
    )
    settings = place.root / "s3t.toml"
    settings.write_text(settings.read_text().replace(old, new))
    with pytest.raises(UsageError, match="would be about nobody"):
        _ingest(place, _source(tmp_path, ANN, BOB), anyway=True)


@pytest.mark.parametrize("name", ["utf-8", "UTF8", "utf-8-sig"])
def test_utf8_is_what_files_are_read_in_anyway(place: Workspace, tmp_path: Path, name: str) -> None:
    settings = place.root / "s3t.toml"
    settings.write_text(settings.read_text().replace('encoding = ""', f'encoding = "{name}"'))
    _ingest(place, _source(tmp_path, ANN, BOB), anyway=True)
    assert Workspace(place.root).config.data.id_columns == ("who", "id")


def test_rows_that_are_appended_are_found_beside_those_that_were_there(
    place: Workspace, tmp_path: Path
) -> None:
    _ingest(place, _source(tmp_path, "Eve", first=100), append=True)
    place = Workspace(place.root)
    assert [_found(place, who)[0] for who in (ANN, "Eve", "eve")] == [
        "in the data",
        "in the data",
        "nearly",
    ]


def test_who_was_in_an_earlier_version_is_found_and_no_model_was_ever_trained(
    place: Workspace, tmp_path: Path
) -> None:
    _ingest(place, _source(tmp_path, BOB, NUMBER))
    place = Workspace(place.root)
    assert _found(place, ANN) == ("in the data", "")
    (request,) = take_hashed(
        place, ["sha1:" + hashlib.sha1(ANN.encode(), usedforsecurity=False).hexdigest()]
    )
    assert [(c["request"], c["outcome"]) for c in _erase(place)["certificates"]] == [
        (request.request_id, "not trained on yet")
    ]


def test_a_quarantined_person_is_no_nobody(place: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "refused.csv"
    path.write_text("id,who,what,kind\nx1,Zoe,a text,neither\n")
    with pytest.raises(DataError):
        _ingest(place, str(path))
    source = Path(_source(tmp_path, ANN, BOB, NUMBER))
    source.write_text(source.read_text() + "x1,Zoe,a text,neither\n")
    _ingest(place, str(source))
    assert _found(Workspace(place.root), "Zoe") == ("in the data", "")


def test_the_split_follows_the_subject_where_no_column_is_named(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place(data={"held_out_by": "", "held_out": 0.5})
    _ingest(place, _source(tmp_path, ANN, BOB))
    held = {
        r.subject
        for r in place.datasets.versions.recorded_rows(
            Workspace(place.root).ledger.state().dataset, HELD_OUT
        )
    }
    trained: set[str] = set()
    dataset = Workspace(place.root).ledger.state().dataset
    assert dataset is not None
    for slice_id in dataset.slice_versions:
        trained |= {r.subject for r in place.datasets.versions.recorded_rows(dataset, slice_id)}
    assert held and trained and not held & trained


def test_who_may_not_erase_is_told_nothing(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(place.database), "may_erase", lambda _: False)
    findings = [look_up(place, {who: who})[who] for who in (ANN, "nobody")]
    findings += [look_up_hashed(place, _hashed(who))[_hashed(who)[0]] for who in (ANN, "nobody")]
    assert [f.found for f in findings] == ["not told"] * 4 and len(set(findings)) == 1
    assert look_alikes(place, take_requests(place, [ANN])) == {}


def _said(place: Workspace, *arguments: str, given: str = "") -> str:
    """What a command prints, of a process that need not start anew."""
    done = CliRunner().invoke(app, [*arguments, "--workspace", str(place.root)], input=given)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_request_in_order_is_told_so(place: Workspace) -> None:
    assert "  in the data: 1 of 1\n" in _said(place, "request", BOB)
    assert "  in the data: 1 of 2\n" in _said(place, "request", NUMBER, "nobody")
    assert "  somebody with this hash is in the data: req-" in _said(
        place, "request", "--hashed", _hashed(ANN)[0]
    )
    assert "  nobody with this hash is in the data: req-" in _said(
        place, "request", "--hashed", _hashed("nobody")[0]
    )


def test_other_spellings_are_told_by_request_requests_and_erase(spellings: Workspace) -> None:
    told = _said(spellings, "request", PETRA[0])
    assert "3 other spellings of it are there too and stay: " in told and "and 1 more" in told
    assert repr(PETRA[1]) in told and "ask for it as well" in told
    wrong = _said(spellings, "request", " petra.wagner@x.org")
    request = wrong.split()[0]
    assert (
        f"`s3t withdraw {request}`" in wrong and repr(PETRA[1]) in wrong and repr(PETRA[2]) in wrong
    )
    assert "3 other spellings stay in the data" in _said(spellings, "requests")
    assert [
        r["others"] for r in json.loads(_said(spellings, "requests", "--json"))["requests"]
    ] == [3, 3]
    done = {c["request"]: c for c in erase(str(spellings.root))["certificates"]}
    assert (done[request]["outcome"], done[request]["others"]) == ("nothing found", 3)
    assert sorted(c["others"] for c in done.values()) == [3, 3]
    lines = render_beside(list(done.values()))
    assert (
        f"  nothing found, but a nearly equal id is there: {request}; ask again with the spelling "
        "in the data" in lines
    )
    assert any(
        "3 other spellings stay in the data: req-" in line for line in lines
    ) and "etra" not in "".join(lines)


def test_a_hold_on_a_look_alike_or_on_nobody_is_told_so(place: Workspace) -> None:
    """Whom it was meant for would be erased, and nobody could undo that."""
    law = ("--basis", "other", "--reason", "a law", "--by", "counsel")
    assert _said(place, "hold", BOB, *law).count("\n") == 1
    near = _said(place, "hold", ANN.lower(), *law)
    assert (
        "not in the data as" in near
        and "but 1 nearly so" in near
        and "hold the one in the data as well" in near
    )
    nobody = _said(place, "hold", "--stdin", *law, given="nobody at all\n")
    assert "not in the data as it is spelt\n" in nobody and "nobody at all" not in nobody
    told = json.loads(_said(place, "hold", "--json", "somebody else", *law))
    assert told["held"] is True and [f["found"] for f in told["found"]] == ["nobody"]


def test_who_was_erased_already_is_told_so_by_request_and_by_erase(place: Workspace) -> None:
    (first,) = take_requests(place, [ANN])
    _erase(place)
    told = _said(place, "request", ANN)
    assert (
        f"already erased by {first.request_id} on {place.now()[:10]}; nothing new is there" in told
    )
    assert "see that they are spelt" not in told
    done = erase(str(place.root))["certificates"]
    assert [c["erased_before"]["request"] for c in done] == [first.request_id]
    (line,) = render_beside(done)
    assert f"already erased by {first.request_id} on " in line and done[0]["request"] in line


def test_each_request_of_a_file_is_told_by_its_line_and_by_no_id(
    place: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "ids.txt").write_text(f"\n{BOB}\nnobody@x.org\n{ANN.lower()}\n{BOB}\n")
    told = _said(place, "request", "--file", str(tmp_path / "ids.txt"))
    assert [line.split("  ")[1] for line in told.splitlines() if line.startswith("req-")] == [
        "line 2",
        "line 3",
        "line 4",
    ]
    assert "not in the data: line 3" in told and "not in the data: line 4, but" in told
    assert not any(each in told for each in (BOB, "nobody@x.org", ANN.lower()))


def test_in_json_each_id_has_its_request_and_its_line(make_place: Make, tmp_path: Path) -> None:
    place = make_place(data={"id_rule": ["case"]})
    _ingest(place, _source(tmp_path, ANN))
    told = json.loads(
        _said(
            place, "request", "--stdin", "--json", NUMBER, given=f"{ANN}\nnobody\n{ANN.upper()}\n"
        )
    )
    of = {f["subject"]: (f["request"], f["line"]) for f in told["found"]}
    one, two, three = (r["id"] for r in told["requests"])
    assert of == {NUMBER: (one, None), ANN: (two, 1), "nobody": (three, 2), ANN.upper(): (two, 3)}


def _predicate(place: Workspace, request_id: str) -> dict[str, Any]:
    import base64

    envelope = json.loads((place.certificates_dir / f"{request_id}.json").read_bytes())
    predicate: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))["predicate"]
    return predicate


def test_requests_list_their_outcomes(place: Workspace) -> None:
    taken = take_requests(place, [ANN, "nobody"])
    _erase(place)
    states = {r["id"]: r["state"] for r in list_requests(Workspace(place.root))}
    assert [states[r.request_id] for r in taken] == ["not trained on yet", "nothing found"]


@pytest.mark.parametrize("where", ["{}/there/x.db", "db/x.db", ".s3t/s3t.db"])
def test_the_ledger_is_searched_wherever_its_file_lies(
    make_place: Make, tmp_path: Path, where: str
) -> None:
    """What somebody typed of a person who came later stands in it."""
    file = where.format(tmp_path)
    Path(file if file.startswith("/") else tmp_path / "w" / file).parent.mkdir(parents=True)
    place = make_place(database={"url": f"sqlite:///{file}"})
    said = "zebulon-quagga-4242"
    hold(place, "somebody else", "other", f"wrote with {said} on it", "clerk")
    _ingest(place, _source(tmp_path, said, BOB))
    take_requests(place, [said])
    with pytest.raises(ResidueFound, match=rf"got matches in 1 file\(s\): \S*{Path(file).name};"):
        _erase(place)


@pytest.mark.parametrize(
    ("old", "new", "record", "is_refused"),
    [
        ('record = "id"', 'record = "nr"', "x1", True),
        ('record = "id"', 'record = "nr"', "", False),
        ('subject = "who"', 'subject = "nr"', "", True),
        ('label = "kind"', 'label = "nr"', "x1", False),
    ],
)
def test_ids_of_other_columns_than_the_data_was_placed_by_are_not_taken(
    place: Workspace, old: str, new: str, record: str, is_refused: bool
) -> None:
    """They would find nobody in it, and the person would be told so."""
    settings = place.root / "s3t.toml"
    settings.write_text(settings.read_text().replace(old, new))
    changed = Workspace(place.root)
    if is_refused:
        with pytest.raises(UsageError, match=r"would find nobody\. Put it back"):
            take_requests(changed, [ANN], record)
        if not record:
            with pytest.raises(UsageError, match=r"would find nobody\. Put it back"):
                take_hashed(changed, ["sha256:" + "0" * 64])
        assert changed.requests.open_now() == []
    else:
        assert take_requests(changed, [ANN], record)
