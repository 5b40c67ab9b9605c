"""A host apart that takes requests, and can neither read nor decide. On a real server, as a user
and an account of its own: tests/stack/test_roles.py."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from flows.adapters.keys import SIGNING_KEY, read_signing_key
from flows.adapters.tables import SEALED_IDS
from flows.cli.app import app
from flows.prefect_flows.erase import erase
from flows.use_cases import erasing, intakes
from flows.use_cases.intakes import (
    add_intake,
    install_intake,
    list_intakes,
    make_intake_key,
    open_sealed,
    remove_intake,
)
from flows.use_cases.requests import approve, extend, list_requests, reject, withdraw
from flows.use_cases.taking import Asked, Taken, take_each, take_requests
from flows.use_cases.tokens import make_token
from flows.use_cases.verifying import verify_path
from flows.workspace.intake import INTAKE_KEY, IntakeHost
from flows.workspace.workspace import Workspace
from s3t_core.erasure.checkpoint import Checkpoint, sign_checkpoint
from s3t_core.erasure.events import RequestSpelt
from s3t_core.erasure.executor import Eraser
from s3t_core.erasure.ledger import head_of
from s3t_core.errors import (
    CertificateError,
    LedgerError,
    StorageError,
    UsageError,
    WorkspaceError,
)
from tests.flows.conftest import CANARY, CANARY_TEXT
from tests.flows.test_api import opened

OTHER = "person-003"


@pytest.fixture
def place(trained: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose database is a file, which the check of a real one would refuse."""
    monkeypatch.setattr(intakes, "check_server", lambda _: None)
    return trained(canary=True)


def added(place: Workspace, folder: Path, name: str = "web site") -> IntakeHost:
    """A host of this workspace, as its three steps make it."""
    public = make_intake_key(folder)
    url = f"sqlite:///{(place.state_dir / 's3t.db').absolute()}"
    _, content = add_intake(place, name, public, "officer", url)
    file = folder.with_name(f"{folder.name}.json")
    file.write_bytes(content)
    return install_intake(folder, file)


@pytest.fixture
def host(place: Workspace, tmp_path: Path) -> IntakeHost:
    return added(place, tmp_path / "host")


def _ask(host: IntakeHost, *subjects: str, record: str = "", key: str = "") -> Taken:
    [taken] = take_each(host, [Asked(subjects, record=record, key=key)])
    assert isinstance(taken, Taken), taken
    return taken


def _sealed(place: Workspace) -> list[str]:
    """Which requests have sealed ids."""
    with place.database.reading() as connection:
        return [row.request for row in connection.execute(select(SEALED_IDS))]


def _files(*folders: Path) -> Iterator[bytes]:
    for folder in folders:
        yield from (p.read_bytes() for p in folder.rglob("*") if p.is_file())


def test_what_it_took_is_erased_and_its_id_lies_nowhere_until_then(
    place: Workspace, host: IntakeHost
) -> None:
    taken = _ask(host, CANARY)
    [request] = taken.requests
    assert place.requests.open_now() == [request.request_id] == _sealed(place)
    database = (place.state_dir / "s3t.db").read_bytes()
    assert CANARY.encode() not in database + b"".join(_files(host.root))
    assert erase(str(place.root))["certificates"]
    assert _sealed(place) == []
    path = place.certificates_dir / f"{request.request_id}.json"
    assert verify_path(path, [place.keys_dir / "signing.pub"])["valid"]
    assert not any(CANARY_TEXT.encode() in found for found in _files(place.root / "data"))
    assert place.ledger.state().outcomes[request.request_id][0] == "erased"
    [scan] = [e for e in place.ledger.events() if e.get("step") == "scan"]
    assert scan["ids_lost"] == [], "its id was looked for"


def test_who_asks_again_seals_again_and_who_is_refused_does_not(
    place: Workspace, host: IntakeHost
) -> None:
    first, again = _ask(host, CANARY), _ask(host, CANARY)
    assert again.before == {first.requests[0].request_id} and len(_sealed(place)) == 2
    [refused] = take_each(host, [Asked(("",))])
    assert isinstance(refused, UsageError) and len(_sealed(place)) == 2


def test_however_often_somebody_asked_what_is_new_is_sealed(
    place: Workspace, host: IntakeHost
) -> None:
    """A retry is sealed again a few times; another spelling of the id always."""
    taken = {_ask(host, OTHER).requests[0].request_id for _ in range(12)}
    assert len(taken) == 1 and len(_sealed(place)) == 8
    with place.database.transaction() as connection:
        spelt = RequestSpelt(
            time=place.now(),
            request=min(taken),
            ids=(host.needles.digest_of(min(taken), "Person-003"),),
            near=(),
        )
        host.needles.keep_ids({min(taken): ["Person-003"]})
        host.needles.write(connection, [min(taken)])
        place.database.append(connection, [spelt])
    assert len(_sealed(place)) == 9
    open_sealed(place)
    assert {OTHER, "Person-003"} <= set(place.needles.ids_of(min(taken)))


@pytest.mark.parametrize("how", ["extend", "reject"])
def test_what_it_took_can_be_decided_on_at_the_workspace(
    place: Workspace, host: IntakeHost, how: str
) -> None:
    """The reason is held against the id as given, which only the workspace can open."""
    [request] = _ask(host, OTHER).requests
    with pytest.raises(UsageError, match="without the person's id"):
        reject(place, request.request_id, "12(5)", f"{OTHER} asks every day", "officer")
    assert list_requests(place)[0]["state"] == "pending"
    [other] = _ask(host, CANARY).requests
    if how == "extend":
        extend(place, other.request_id, "many requests this month", "officer")
    else:
        reject(place, other.request_id, "12(5)", "manifestly unfounded", "officer")
    assert _sealed(place) == []


def test_it_has_nothing_that_opens_reads_or_closes(place: Workspace, host: IntakeHost) -> None:
    _ask(host, CANARY)
    keys = {p.name for p in host.keys_dir.iterdir()}
    assert keys == {INTAKE_KEY} and host.needles.ids_of(_sealed(place)[0]) == []
    secret = place.keys.content, place.keys.placement, read_signing_key(place.keys_dir)
    held = b"".join(_files(host.root))
    assert not any(s.hex().encode() in held for s in secret[:2])
    assert (place.keys_dir / SIGNING_KEY).read_bytes() not in held
    for file in place.keys_dir.glob("unseal-*"):
        assert file.stat().st_mode & 0o777 == 0o600 and file.read_bytes().strip() not in held
    with pytest.raises(WorkspaceError, match="a host which takes requests"):
        Workspace(host.root)


def test_its_key_signs_nothing_that_counts_elsewhere(place: Workspace, host: IntakeHost) -> None:
    """Neither a closing document nor a checkpoint of the workspace's: not in the place of its key,
    not among its public ones."""
    [request] = _ask(host, OTHER).requests
    theirs = (host.keys_dir / INTAKE_KEY).read_bytes()
    ours = (place.keys_dir / SIGNING_KEY).read_bytes()
    (place.keys_dir / SIGNING_KEY).write_bytes(theirs)
    with pytest.raises(WorkspaceError, match="the signing key that the ledger names"):
        withdraw(Workspace(place.root), request.request_id)
    (place.keys_dir / SIGNING_KEY).write_bytes(ours)
    leaves = place.ledger.leaves()
    forged = sign_checkpoint(
        Checkpoint(leaves[0].hex(), head_of(leaves), place.now()), host.signing.private()
    )
    (place.state_dir / "checkpoint.json").write_bytes(forged)
    with pytest.raises(CertificateError, match="own checkpoint"):
        Workspace(place.root).ledger.state()
    public = host.signing.private().public_key()
    from flows.adapters.keys import _pem

    (place.keys_dir / "retired-00.pub").write_bytes(_pem(public))
    with pytest.raises(LedgerError, match="a key that the ledger names"):
        Workspace(place.root).ledger.state()


def test_what_it_signed_notices_a_ledger_that_was_rolled_back(
    place: Workspace, host: IntakeHost, tmp_path: Path
) -> None:
    before = tmp_path / "before.db"
    shutil.copy(place.state_dir / "s3t.db", before)
    _ask(host, CANARY)
    shutil.copy(before, place.state_dir / "s3t.db")
    with pytest.raises(LedgerError, match="an older copy took its place"):
        _ask(IntakeHost(host.root), OTHER)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_one_that_was_removed_takes_nothing_more_and_what_it_took_is_erased(
    place: Workspace, host: IntakeHost, when: str
) -> None:
    [request] = _ask(host, CANARY).requests
    if when == "meanwhile":
        host.requests  # noqa: B018  # it has looked whether it may
    entry = remove_intake(place, host.handed.host[:16], "officer")
    assert not entry["takes_requests"] and list_intakes(place.ledger.state()) == [entry]
    later = host if when == "meanwhile" else IntakeHost(host.root)
    with pytest.raises(WorkspaceError, match="was removed"):
        _ask(later, OTHER)
    assert place.requests.open_now() == [request.request_id] and _sealed(place) == []
    assert not list(place.keys_dir.glob("unseal-*")), "nobody opens a copy of the row any more"
    assert erase(str(place.root))["certificates"]
    with pytest.raises(UsageError, match="got 0"):
        remove_intake(place, host.handed.host[:16], "officer")


def test_while_the_key_that_opens_is_lost_no_erasure_goes_on(
    place: Workspace, host: IntakeHost
) -> None:
    _ask(host, CANARY)
    [key] = place.keys_dir.glob("unseal-*")
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(WorkspaceError, match="opens the ids that an intake host sealed"):
        erase(str(place.root))
    assert len(_sealed(place)) == 1 and place.ledger.state().plan is None
    key.write_bytes(kept)
    key.chmod(0o600)
    assert erase(str(place.root))["certificates"]


@pytest.mark.parametrize("how", ["swapped", "changed"])
def test_an_id_that_is_not_the_one_that_was_sealed_is_looked_for_by_nobody(
    place: Workspace, host: IntakeHost, how: str
) -> None:
    """It counts as lost, and the certificate says so."""
    ids = [r.request_id for r in _ask(host, CANARY, OTHER).requests]
    with place.database.transaction() as connection:
        rows = {r.request: r for r in connection.execute(select(SEALED_IDS))}
        for mine, other in zip(ids, reversed(ids), strict=True):
            sealed = rows[other if how == "swapped" else mine].sealed
            sealed = sealed if how == "swapped" else sealed[:-1] + bytes([sealed[-1] ^ 1])
            connection.execute(
                update(SEALED_IDS).where(SEALED_IDS.c.id == rows[mine].id).values(sealed=sealed)
            )
    assert len(erase(str(place.root))["certificates"]) == 2
    steps = [e for e in place.ledger.events() if e.get("step") == "scan"]
    assert sorted(steps[-1]["ids_lost"]) == sorted(ids)


def test_what_is_asked_while_an_erasure_runs_is_opened_for_the_plan_that_it_is_in(
    place: Workspace, host: IntakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ask(host, OTHER)
    begin, asked = Eraser.begin, list[str]()

    def meanwhile(eraser: Eraser, *given: Any) -> Any:
        plan = begin(eraser, *given)
        if not asked:
            asked.append(_ask(host, CANARY).requests[0].request_id)
        return plan

    monkeypatch.setattr(Eraser, "begin", meanwhile)
    assert len(erase(str(place.root))["certificates"]) == 2
    scans = [e for e in place.ledger.events() if e.get("step") == "scan"]
    assert [s["ids_lost"] for s in scans] == [[], []]


def test_what_a_run_was_cut_off_before_opening_is_opened_by_the_next(
    place: Workspace, host: IntakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its plan has begun, so that nobody begins it again."""
    opened = erasing.open_sealed

    def asked_meanwhile(workspace: Any) -> int:
        monkeypatch.setattr(erasing, "open_sealed", cut_off)
        found = opened(workspace)
        _ask(host, CANARY)
        return found

    def cut_off(_: object) -> int:
        raise StorageError("no space")

    monkeypatch.setattr(erasing, "open_sealed", asked_meanwhile)
    with pytest.raises(StorageError):
        erase(str(place.root))
    monkeypatch.setattr(erasing, "open_sealed", opened)
    assert place.ledger.state().plan is not None and len(_sealed(place)) == 1
    assert erase(str(place.root))["certificates"] and _sealed(place) == []
    [scan] = [e for e in place.ledger.events() if e.get("step") == "scan"]
    assert scan["ids_lost"] == []


def test_an_id_that_was_lost_comes_back_where_it_is_asked_again(
    place: Workspace, host: IntakeHost
) -> None:
    [request] = _ask(host, CANARY).requests
    with place.database.transaction() as connection:
        connection.execute(SEALED_IDS.delete())
    assert _ask(host, CANARY).before == {request.request_id} and len(_sealed(place)) == 1
    assert erase(str(place.root))["certificates"]
    [scan] = [e for e in place.ledger.events() if e.get("step") == "scan"]
    assert scan["ids_lost"] == []


def test_a_removal_that_was_cut_off_is_ended_by_the_next_erasure(
    place: Workspace, host: IntakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ask(host, CANARY)

    def killed(_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(intakes, "open_sealed", killed)
        remove_intake(place, host.handed.host, "officer")
    assert list(place.keys_dir.glob("unseal-*"))
    assert erase(str(place.root))["certificates"]
    assert not list(place.keys_dir.glob("unseal-*"))
    [scan] = [e for e in place.ledger.events() if e.get("step") == "scan"]
    assert scan["ids_lost"] == []


def test_no_request_is_called_as_no_file_can_be(place: Workspace) -> None:
    """Whoever may write in the ledger, and has its seal, chooses the name."""
    [taken] = take_requests(place, [OTHER])
    [entry] = [e for e in place.ledger.events() if e["type"] == "request"]
    for name in ("../../evil", "/srv/evil", "evil.json", "", "a" * 65):
        with pytest.raises(LedgerError):
            place.ledger.append({**entry, "request": name, "time": place.now()})
    assert place.requests.open_now() == [taken.request_id]


def test_a_request_that_ends_otherwise_takes_its_sealed_id_along(
    place: Workspace, host: IntakeHost
) -> None:
    first, second = _ask(host, CANARY, OTHER).requests
    withdraw(place, first.request_id)
    assert _sealed(place) == [second.request_id]


def test_it_opens_a_door_for_requests_and_for_nothing_else(
    place: Workspace, host: IntakeHost
) -> None:
    with pytest.raises(UsageError, match="roles, of asks"):
        make_token(host, "web site", ["erases"], 1)
    with pytest.raises(UsageError, match="words of letters alone"):
        make_token(host, "ann@x.org", ["asks"], 1)
    token = make_token(host, "web site", ["asks"], 1)["token"]
    with (
        opened(host) as url,  # type: ignore[arg-type]
        httpx.Client(
            base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=60
        ) as client,
    ):
        assert httpx.get(f"{url}/health/ready").status_code == 200
        asked = client.post("/requests", json={"subjects": [CANARY]})
        assert asked.status_code == 201 and asked.json()["found"] is None
        request_id = asked.json()["requests"][0]["id"]
        shown = client.get(f"/requests/{request_id}").json()
        assert shown["state"] == "pending" and shown["history"] is None
        paths = set(client.get("/openapi.json").json()["paths"])
        assert paths == {
            "/api/v1/requests",
            "/api/v1/requests/{request_id}",
            "/api/v1/token",
            "/health/live",
            "/health/ready",
        }
        for path in ("approve", "withdraw", "reject", "extend"):
            assert client.post(f"/requests/{request_id}/{path}").status_code == 404
        assert client.get("/requests").status_code in (404, 405)
        assert not (host.state_dir / "door.json").exists()
        erase(str(place.root))
        assert client.get(f"/requests/{request_id}").json()["state"] == "closed"
        remove_intake(place, host.handed.host, "officer")
        refused = client.post("/requests", json={"subjects": [OTHER]})
        assert refused.status_code == 503 and OTHER not in refused.text


def test_a_host_is_added_once_with_its_own_file_and_to_no_file_of_a_database(
    place: Workspace, host: IntakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = make_intake_key(host.root)
    with pytest.raises(UsageError, match="not added before"):
        add_intake(place, "again", public, "officer")
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        add_intake(place, "again", "0b", "officer")
    make_intake_key(tmp_path / "other")
    with pytest.raises(UsageError, match="another host's"):
        install_intake(tmp_path / "other", host.root.with_name("host.json"))
    with pytest.raises(UsageError, match="another or none"):
        install_intake(host.root, host.root / "s3t.toml")
    with pytest.raises(UsageError, match="that of a workspace"):
        make_intake_key(place.root)
    with pytest.raises(UsageError, match="made this host's key"):
        install_intake(tmp_path / "nowhere", host.root.with_name("host.json"))
    monkeypatch.undo()
    with pytest.raises(UsageError, match="s3t migrate"):
        add_intake(
            place,
            "again",
            make_intake_key(tmp_path / "third"),
            "officer",
        )


def test_what_it_took_waits_for_an_approval_where_that_is_asked_for(
    trained: Callable[..., Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intakes, "check_server", lambda _: None)
    place = trained(canary=True, erasure={"needs_approval": True, "staleness_seconds": 0})
    host = added(place, tmp_path / "host")
    [request] = _ask(host, CANARY).requests
    assert [r["state"] for r in list_requests(place)] == ["awaiting approval"]
    assert not erase(str(place.root))["certificates"]
    assert _sealed(place) == [], "opened, and kept where an erasure looks"
    approve(place, [request.request_id], "officer")
    assert erase(str(place.root))["certificates"]


def test_the_commands_of_a_host(
    place: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = tmp_path / "host", tmp_path / "hand.json"
    said = lambda: capsys.readouterr().out  # noqa: E731
    app(["intake", "key", str(folder)], standalone_mode=False)
    public = said().strip()
    at = ["--workspace", str(place.root)]
    add = ["intake", "add", "web site", "--key", public, "--out", str(file), "--by", "officer", *at]
    app([*add, "--database", f"sqlite:///{place.state_dir / 's3t.db'}"], standalone_mode=False)
    assert file.stat().st_mode & 0o777 == 0o600 and "Carry" in said()
    app(["intake", "install", str(file), str(folder)], standalone_mode=False)
    app(
        ["token", "make", "web site", "--role", "asks", "--workspace", str(folder)],
        standalone_mode=False,
    )
    assert "s3t_" in said()
    app(["intake", "list", *at], standalone_mode=False)
    line = said()
    assert "web site" in line and "takes requests" in line
    app(["intake", "remove", line.split()[0], "--by", "officer", *at], standalone_mode=False)
    assert "removed" in said()
    with closing(sqlite3.connect(place.state_dir / "s3t.db")) as database:
        kinds = [row[0] for row in database.execute("SELECT leaf FROM ledger")]
    assert sum(b'"type":"intake"' in leaf for leaf in kinds) == 2
