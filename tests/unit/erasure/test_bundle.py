"""An evidence bundle verifies by itself, and no byte of it can be changed, dropped or swapped
unseen."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings

from s3t_core.canonical import canonical_json, sha256_hex
from s3t_core.erasure.bundle import make_bundle, standalone_verifier
from s3t_core.erasure.certificate import check_statement
from s3t_core.erasure.checkpoint import Checkpoint, sign_checkpoint
from s3t_core.erasure.dsse import PAYLOAD_TYPE, _envelope, pre_authentication, statement_of, verify
from s3t_core.erasure.ledger import head_of, leaf_of
from s3t_core.erasure.merkle import leaf_hash
from s3t_core.erasure.offline import VOUCHED, NotValid, _canonical, check_bundle, key_id, read_files
from s3t_core.erasure.vocabulary import Event
from s3t_core.errors import CertificateError
from tests.unit.core.test_canonical import VALUES
from tests.unit.erasure.test_executor import World, make_world

OTHER = Ed25519PrivateKey.from_private_bytes(b"\x09" * 32)


def _checkpoint(events: list[Event], size: int = 0) -> Checkpoint:
    leaves = [leaf_hash(leaf_of(e)) for e in events][: size or None]
    return Checkpoint(leaves[0].hex(), head_of(leaves), "2026-11-01T00:00:00Z")


@pytest.fixture(scope="module")
def erased() -> World:
    """Two batches: one request, then two."""
    world = make_world()
    world.ask("req-1", "s01-2")
    world.eraser().run()
    world.ask("req-2", "s02-1")
    world.ask("req-3", "only-held-out")
    world.eraser().run()
    return world


def _key(world: World) -> Ed25519PrivateKey:
    key: Ed25519PrivateKey = world.ports.certificates.key  # type: ignore[attr-defined]
    return key


def _bundle(world: World, **changed: Any) -> dict[str, bytes]:
    events = world.ledger.events
    checkpoint = _checkpoint(events)
    given = {
        "certificates": dict(world.ports.certificates.files),
        "checkpoint": checkpoint,  # type: ignore[attr-defined]
        "signed": sign_checkpoint(checkpoint, _key(world)),
        "events": events,
        "earlier": [_checkpoint(events, 5)],
    } | changed
    return make_bundle(**given)


def test_a_bundle_verifies_and_says_what_it_cannot_prove(erased: World) -> None:
    found = check_bundle(_bundle(erased), [_key(erased).public_key()])
    assert found["valid"] and found["problems"] == []
    assert [c["request"] for c in found["certificates"]] == ["req-1", "req-2", "req-3"]
    assert found["checkpoint"]["size"] == len(erased.ledger.events)
    assert any("have it from them by another way" in line for line in found["not_proved"])


@pytest.mark.slow
def test_any_changed_byte_of_what_it_proves_is_detected(erased: World) -> None:
    files, public = _bundle(erased), [_key(erased).public_key()]
    for name in ("checkpoint.json", "certificates/req-2.json"):
        for i in range(len(files[name])):
            forged = files[name][:i] + bytes([files[name][i] ^ 1]) + files[name][i + 1 :]
            assert not check_bundle(files | {name: forged}, public)["valid"], (name, i)


def test_any_changed_value_of_a_proof_is_detected(erased: World) -> None:
    files, public = _bundle(erased), [_key(erased).public_key()]
    proofs = json.loads(files["proofs.json"])
    changed = 0
    for request, proof in proofs["certificates"].items():
        for part in ("inclusion", "consistency"):
            for at in range(len(proof[part])):
                forged = json.loads(files["proofs.json"])
                forged["certificates"][request][part][at] = "00" * 32
                assert not check_bundle(
                    files | {"proofs.json": json.dumps(forged).encode()}, public
                )["valid"]
                changed += 1
        for part, value in (
            ("index", proof["index"] - 1),
            ("entry", proof["entry"] | {"certificate": "0" * 64}),
            ("entry", proof["entry"] | {"time": "2020-01-01T00:00:00Z"}),
            ("inclusion", None),
            ("entry", None),
            ("index", 1.5),
        ):
            forged = json.loads(files["proofs.json"])
            forged["certificates"][request][part] = value
            assert not check_bundle(files | {"proofs.json": json.dumps(forged).encode()}, public)[
                "valid"
            ], part
    assert changed > 10


@pytest.mark.parametrize("name", ["checkpoint.json", "proofs.json", "certificates/req-1.json"])
def test_a_missing_file_is_detected(erased: World, name: str) -> None:
    files = _bundle(erased)
    del files[name]
    assert not check_bundle(files, [_key(erased).public_key()])["valid"]


@pytest.mark.parametrize(
    "name",
    [
        "certificates/a/req-2.json",
        "certificates//req-2.json",
        "certificates/../certificates/req-2.json",
        "certificates/req-2.txt",
        "certificates/req-2.JSON",
        "certificates/req-2.json/",
        "Certificates/req-2.json",
        "certificates\\req-2.json",
        "sub/certificates/req-2.json",
        "./certificates/req-2.json",
        "certificates/.json/x",
        "certific\u0430tes/req-2.json",
        "\uff43ertificates/req-2.JSON",
        "more/req-2.json",
        "req-2.json",
    ],
)
def test_a_document_under_another_name_is_no_further_document(
    erased: World, tmp_path: Path, name: str
) -> None:
    """A copy of a genuine one would count as one more erasure. In the zip and in the directory it
    was unpacked to."""
    files, public = _bundle(erased), [_key(erased).public_key()]
    more = files | {name: files["certificates/req-2.json"]}
    found = check_bundle(more, public)
    assert not found["valid"] and "whoever counts documents" in str(found["problems"])
    assert [c["request"] for c in found["certificates"]] == ["req-1", "req-2", "req-3"]
    told_there = name.startswith(("certificates/a", "certific\u0430", "\uff43", "more", "req"))
    for n, data in (more if told_there else files).items():
        (tmp_path / n).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / n).write_bytes(data)
    (tmp_path / "certificates" / "empty").mkdir()
    assert check_bundle(read_files(tmp_path), public)["valid"] is not told_there


def test_a_checkpoint_or_a_key_that_somebody_keeps_beside_an_unpacked_bundle_is_no_matter(
    erased: World, tmp_path: Path
) -> None:
    files = _bundle(erased)
    kept = {"EARLIER.json": files["checkpoint.json"], "notes.txt": b"x", "controller.pem": b"y"}
    kept |= {"another project/package.json": b"{}", "another project/src/a.json": b"{}"}
    for name, data in (files | kept).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert check_bundle(read_files(tmp_path), [_key(erased).public_key()])["valid"]


def test_entries_that_only_name_folders_are_no_documents(erased: World) -> None:
    files = _bundle(erased) | {"certificates/": b"", "certificates/empty/": b""}
    assert check_bundle(files, [_key(erased).public_key()])["valid"]


def test_a_swapped_certificate_another_key_or_nothing_at_all_is_not_valid(erased: World) -> None:
    files, public = _bundle(erased), [_key(erased).public_key()]
    swapped = files | {"certificates/req-1.json": files["certificates/req-2.json"]}
    assert "named by its request" in " ".join(check_bundle(swapped, public)["problems"])
    assert not check_bundle(files, [OTHER.public_key()])["valid"]
    assert not check_bundle({}, public)["valid"]
    deep = files | {"proofs.json": b"[" * 200_000, "checkpoint.json": b'{"a":' * 100_000}
    assert not check_bundle(deep, public)["valid"]


def test_a_ledger_that_was_rewritten_after_the_certificate_does_not_continue_it(
    erased: World,
) -> None:
    events = [dict(e) for e in erased.ledger.events]
    events[4]["rewritten"] = "yes"
    checkpoint = _checkpoint(events)
    files = _bundle(
        erased,
        events=events,
        checkpoint=checkpoint,
        signed=sign_checkpoint(checkpoint, _key(erased)),
    )
    found = check_bundle(files, [_key(erased).public_key()])
    assert not found["valid"] and "continue the certificate's" in " ".join(found["problems"])


def test_an_earlier_checkpoint_is_continued_or_the_bundle_is_not_valid(erased: World) -> None:
    events, key = erased.ledger.events, _key(erased)
    files = _bundle(erased)
    assert check_bundle(files, [key.public_key()], sign_checkpoint(_checkpoint(events, 5), key))[
        "valid"
    ]
    no_proof = check_bundle(files, [key.public_key()], sign_checkpoint(_checkpoint(events, 6), key))
    assert "ask for a bundle made with that checkpoint" in " ".join(no_proof["problems"])
    other = [dict(e) for e in events[:5]]
    other[3]["other"] = "history"
    assert "cut or rewritten" in " ".join(
        check_bundle(files, [key.public_key()], sign_checkpoint(_checkpoint(other), key))[
            "problems"
        ]
    )
    foreign = [{"type": "workspace", "n": 1}, *other[1:]]
    assert "the ledger that the earlier checkpoint names" in " ".join(
        check_bundle(files, [key.public_key()], sign_checkpoint(_checkpoint(foreign), key))[
            "problems"
        ]
    )


def test_a_certificate_that_the_ledger_does_not_know_is_not_bundled(erased: World) -> None:
    certificates = dict(erased.ports.certificates.files)  # type: ignore[attr-defined]
    with pytest.raises(CertificateError, match="as the ledger recorded it"):
        _bundle(erased, certificates={"req-1": certificates["req-2"]})
    with pytest.raises(CertificateError):
        _bundle(erased, certificates={"req-9": certificates["req-2"]})


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        (b'"residue":0', b'"residue":1,"residue":0'),
        (b'"residue":0', b'"residue":false'),
        (b'"residue":0', b'"residue":0.0'),
        (b'"residue":0', b'"residue": 0'),
        (b'"residue":0', b'"\\u0072esidue":0'),
        (b'"outcome":"erased"', b'"outcome":"nothing found","outcome":"erased"'),
        (b"", b""),
    ],
)
def test_the_bundles_verifier_and_ours_say_the_same_of_a_document_that_readers_may_read_in_two_ways(
    written: bytes, instead: bytes
) -> None:
    """The controller signed it so, and its ledger has it: of a name that stands twice some readers
    take the first."""
    world = make_world()
    world.ask("req-1", "s01-2")
    key, issue = _key(world), world.ports.certificates.issue

    def issued(predicates: Mapping[str, Any], subject: dict[str, Any]) -> dict[str, str]:
        issue(predicates, subject)
        files = world.ports.certificates.files  # type: ignore[attr-defined]
        payload = canonical_json(statement_of(files["req-1"]))
        assert written in payload
        payload = payload.replace(written, instead, 1)
        signature = key.sign(pre_authentication(PAYLOAD_TYPE, payload))
        files["req-1"] = canonical_json(_envelope(payload, key_id(key.public_key()), signature))
        return {"req-1": sha256_hex(files["req-1"])}

    world.ports.certificates.issue = issued  # type: ignore[method-assign]
    world.eraser().run()
    ours = True
    try:
        check_statement(verify(world.ports.certificates.files["req-1"], key.public_key()))  # type: ignore[attr-defined]
    except CertificateError:
        ours = False
    assert check_bundle(_bundle(world), [key.public_key()])["valid"] is ours is (not written)


@settings(max_examples=300)
@given(VALUES)
def test_the_bundles_verifier_spells_as_the_library_does(value: Any) -> None:
    assert _canonical(json.loads(json.dumps(value))) == rfc8785.dumps(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, "\ud800", {"\ud800": 1}])
def test_the_bundles_verifier_spells_nothing_that_the_library_refuses(value: Any) -> None:
    with pytest.raises(ValueError):
        _canonical(value)


def test_a_replaced_key_closes_nothing_that_the_ledger_has_later() -> None:
    """The key was replaced between two erasures; a thief who has the old one signed the second's
    certificate, and the ledger closed the request with it."""
    world = make_world()
    world.ask("req-1", "s01-2")
    world.eraser().run()
    old = _key(world).public_key()
    raw, new = old.public_bytes(Encoding.Raw, PublicFormat.Raw), key_id(OTHER.public_key())
    vouched = _key(world).sign(VOUCHED + bytes.fromhex(new)).hex()
    world.tell(
        type="key",
        old=key_id(old),
        new=new,
        by="x",
        lost=False,
        old_public=raw.hex(),
        vouched=vouched,
    )
    world.ask("req-2", "s02-1")
    world.eraser().run()
    files = _bundle(world, signed=sign_checkpoint(_checkpoint(world.ledger.events), OTHER))
    for keys in ([OTHER.public_key()], [old, OTHER.public_key()], [OTHER.public_key(), old]):
        found = check_bundle(files, keys)
        assert [c["request"] for c in found["certificates"]] == ["req-1"] and not found["valid"]
        assert "a replaced key signs nothing" in found["problems"][0]
    by_the_old = _bundle(world)  # the checkpoint too
    for keys in ([old], [old, OTHER.public_key()]):
        assert not check_bundle(by_the_old, keys)["valid"]
    proofs = json.loads(files["proofs.json"])
    proofs["keys"] = []  # the change is left out
    cut = files | {"proofs.json": json.dumps(proofs).encode()}
    assert not check_bundle(cut, [old, OTHER.public_key()])["valid"]
    earlier = sign_checkpoint(
        _checkpoint(world.ledger.events, 5), _key(world)
    )  # from when the old key was in use
    assert not [
        p
        for p in check_bundle(files, [OTHER.public_key()], earlier)["problems"]
        if "checkpoint" in p
    ]


@pytest.mark.parametrize(
    "number", ["Infinity", "-Infinity", "NaN", "1e999", "1.5", "true", '"1"', "null", "9" * 400]
)
def test_a_number_that_is_none_is_told_as_a_problem(number: str) -> None:
    world = make_world()
    world.ask("req-1", "s01-2")
    world.eraser().run()
    old = _key(world).public_key()
    raw, new = old.public_bytes(Encoding.Raw, PublicFormat.Raw), key_id(OTHER.public_key())
    vouched = _key(world).sign(VOUCHED + bytes.fromhex(new)).hex()
    world.tell(
        type="key",
        old=key_id(old),
        new=new,
        by="x",
        lost=False,
        old_public=raw.hex(),
        vouched=vouched,
    )
    files = _bundle(world, signed=sign_checkpoint(_checkpoint(world.ledger.events), OTHER))
    earlier = sign_checkpoint(_checkpoint(world.ledger.events, 5), _key(world))
    assert check_bundle(files, [OTHER.public_key()], earlier)["valid"]
    whole = json.loads(files["proofs.json"])
    for place in (whole["keys"][0], whole["certificates"]["req-1"], whole["earlier"][0]):
        name = "size" if place is whole["earlier"][0] else "index"
        kept, place[name] = place[name], "NUMBER"
        proofs = json.dumps(whole).replace('"NUMBER"', number).encode()
        place[name] = kept
        assert not check_bundle(files | {"proofs.json": proofs}, [OTHER.public_key()], earlier)[
            "valid"
        ]


def test_a_zip_that_is_hostile_is_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zip"
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("checkpoint.json", "w") as file,
    ):
        for _ in range(1100):
            file.write(b"\0" * 2**20)
    with pytest.raises(NotValid, match="at most"):
        read_files(bomb)
    twice = tmp_path / "twice.zip"
    with zipfile.ZipFile(twice, "w") as archive, pytest.warns(UserWarning):
        archive.writestr("checkpoint.json", b"{}")
        archive.writestr("checkpoint.json", b"[]")
    with pytest.raises(NotValid, match="once"):
        read_files(twice)
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(NotValid):
        read_files(tmp_path / "no.zip")


def test_the_verifier_in_the_bundle_runs_by_itself(erased: World, tmp_path: Path) -> None:
    """Isolated from this environment's s3t: any import of it would fail."""
    for name, content in _bundle(erased).items():
        path = tmp_path / "bundle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    key = tmp_path / "controller.pem"
    key.write_bytes(
        _key(erased).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    assert b"s3t_core" not in standalone_verifier()

    def run(*given: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", str(tmp_path / "bundle" / "verify.py"), *given],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )

    good = run("--key", str(key))
    assert (
        good.returncode == 0
        and good.stdout.count("valid: req-") == 3
        and "does not prove" in good.stdout
    )
    assert run().returncode == 2 and run("--key", "no such file").returncode == 2
    path = tmp_path / "bundle" / "certificates" / "req-1.json"
    path.write_bytes(path.read_bytes().replace(b"payload", b"Payload", 1))
    bad = run("--key", str(key))
    assert bad.returncode == 1 and "NOT VALID: certificates/req-1.json" in bad.stdout
    proofs = tmp_path / "bundle" / "proofs.json"
    kept = proofs.read_bytes()
    deep = b"[" * 900 + b"]" * 900
    for hostile in (
        kept.replace(b'"keys":[', b'"keys":[{"index":0,"entry":{"type":"key","x":' + deep + b"}},"),
        kept.replace(b'"certificates":{', b'"certificates":{"\\ud800":{"entry":' + deep + b"},"),
        kept.replace(b'"entry":{', b'"entry":{"x":' + deep + b",", 1),
    ):
        assert hostile != kept
        proofs.write_bytes(hostile)
        bad = run("--key", str(key))
        assert bad.returncode == 1 and "NOT VALID" in bad.stdout and not bad.stderr
