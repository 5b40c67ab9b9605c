"""The promises of s3t_core/ports.py, one by one."""

import pytest

from s3t_core.domain import Release
from s3t_core.erasure import events
from s3t_core.erasure.events import as_json
from s3t_core.erasure.ledger import leaf_of
from s3t_core.erasure.merkle import includes, leaf_hash
from s3t_core.erasure.state import VersionRecord
from s3t_core.errors import LedgerError
from s3t_core.ports import Closing
from tests.contracts.conftest import DATASET, Ports

NOW = "2099-01-01T00:00:00Z"
"""Later than every entry that a world begins with."""


def _approved(request: str, by: str = "the office") -> events.LedgerEvent:
    return events.RequestApproved(time=NOW, request=request, by=by)


def _withdrawn(request: str) -> Closing:
    told = events.RequestClosed(time=NOW, request=request, kind="withdrawal", certificate="0" * 64)
    return Closing(request, "0" * 64, told)


# --- Ledger


def test_what_is_appended_is_in_state_head_and_proofs(ports: Ports) -> None:
    (asked,) = ports.ask("ann")
    before, told = ports.ledger.head(), _approved(asked.request_id)
    ports.ledger.append(told)
    assert ports.ledger.state().approved == {asked.request_id: "the office"}
    head, event = ports.ledger.head(), as_json(told)
    assert head.size == before.size + 1 and head.root != before.root
    proof = ports.ledger.prove(event)
    path = [bytes.fromhex(node) for node in proof.proof]
    assert proof.head == head
    assert includes(
        bytes.fromhex(head.root), head.size, proof.index, leaf_hash(leaf_of(event)), path
    )


def test_a_ledger_takes_all_of_what_it_is_told_or_nothing(ports: Ports) -> None:
    (asked,) = ports.ask("ann")
    before = ports.ledger.head()
    with pytest.raises(LedgerError):
        ports.ledger.append(_approved(asked.request_id), _approved("req-that-nobody-asked"))
    assert ports.ledger.head() == before and not ports.ledger.state().approved


def test_what_is_not_in_a_ledger_has_no_proof(ports: Ports) -> None:
    (asked,) = ports.ask("ann")
    with pytest.raises(LedgerError):
        ports.ledger.prove(as_json(_approved(asked.request_id)))


# --- RequestBook


def test_open_requests_are_told_oldest_first_and_any_in_the_order_asked(ports: Ports) -> None:
    taken = [request.request_id for request in ports.ask("ann", "bob", "cid")]
    assert ports.requests.open_now() == taken
    backwards = taken[::-1]
    assert [request.request_id for request in ports.requests.get(backwards)] == backwards


def test_who_decides_by_a_state_is_told_of_the_requests_of_that_moment(ports: Ports) -> None:
    first, second = ports.ask("ann", "bob")
    before = ports.ledger.state()
    (later,) = ports.ask("cid")
    ports.requests.close([_withdrawn(first.request_id)])
    assert ports.requests.pending(before) == [first, second]  # open then, both
    assert ports.requests.pending(ports.ledger.state()) == [second, later]
    assert ports.requests.open_now() == [second.request_id, later.request_id]


def test_a_request_is_closed_in_book_and_ledger_at_once(ports: Ports) -> None:
    first, second = ports.ask("ann", "bob")
    ports.requests.close([_withdrawn(first.request_id)])
    assert ports.requests.open_now() == [second.request_id]
    assert ports.requests.get([first.request_id])[0].certificate == "0" * 64
    assert ports.ledger.state().closed == {first.request_id: "withdrawal"}


def test_who_is_suppressed_stays_so_when_it_is_said_again(ports: Ports) -> None:
    (asked,) = ports.ask("ann")
    for _ in range(2):
        ports.requests.suppress([asked], NOW)
    assert ports.suppressed() == {asked.suppression}


# --- StageArtifacts


def test_a_store_holds_what_was_put_until_it_is_deleted_for_good(ports: Ports) -> None:
    first, second = ports.keep_stages([b"one", b"two"])
    assert set(ports.stages.digests()) == {first, second}
    assert ports.stages.holds(first) and not ports.stages.holds("f" * 64)
    for _ in range(2):
        ports.stages.delete(first)
    assert not ports.stages.holds(first) and list(ports.stages.digests()) == [second]


# --- Activations


def test_only_activations_of_allowed_slices_stay_and_the_others_are_counted(ports: Ports) -> None:
    digests = [character * 64 for character in "abc"]
    ports.keep_activations(digests)
    assert ports.kept_activations() == set(digests)
    assert ports.activations.allow(digests[:1]) == 2
    assert ports.kept_activations() == {digests[0]} and ports.activations.allow(digests[:1]) == 0


# --- Needles


def test_needles_are_told_by_request_until_they_are_forgotten(ports: Ports) -> None:
    ann, bob = (request.request_id for request in ports.ask("ann", "bob"))
    told = {ann: [ports.digest_of(ann, "ann")], bob: [ports.digest_of(bob, "bob")]}
    ports.needles.gather("plan-1", {ann: ["a text", "a text"], bob: ["another"]})
    found = ports.needles.read("plan-1", told)
    assert (found.ids, found.ids_lost) == (["ann", "bob"], [])
    assert set(found.texts) == {"a text", "another"}
    for _ in range(2):
        ports.needles.forget("plan-1", [ann])
    left = ports.needles.read("plan-1", told)
    assert left.ids_of[bob] == ["bob"] and left.ids_lost == [ann]
    assert left.texts_of is not None and left.texts_of[bob] == ["another"]
    assert not left.texts_of[ann]


def test_needles_that_are_lost_are_told_to_be(ports: Ports) -> None:
    (ann,) = (request.request_id for request in ports.ask("ann"))
    told = {ann: [ports.digest_of(ann, "ann"), ports.digest_of(ann, "Ann, as she is also spelt")]}
    found = ports.needles.read("plan-that-was-never-gathered", told)
    assert found.ids_lost == [ann] and found.texts_of is None


def test_needles_of_nobody_are_pruned(ports: Ports) -> None:
    ann, bob = (request.request_id for request in ports.ask("ann", "bob"))
    ports.needles.gather("plan-1", {ann: ["a text"], bob: ["another"]})
    ports.needles.gather("plan-2", {bob: ["a third"]})
    ports.needles.prune(lambda: ["plan-1", ann])
    told = {ann: [ports.digest_of(ann, "ann")], bob: [ports.digest_of(bob, "bob")]}
    found = ports.needles.read("plan-1", told)
    assert found.ids == ["ann"] and found.ids_lost == [bob] and found.texts == ["a text"]
    assert ports.needles.read("plan-2", told).texts_of is None


# --- Registry


def _release(name: str) -> Release:
    return Release(name, DATASET.version, ())


def test_a_release_is_registered_once_where_the_ledger_vouches_for_its_files(ports: Ports) -> None:
    """And anew where it does not: then what is there goes."""
    first = ports.registry().publish(_release("release-1"), {}, {})
    assert first.document
    again = ports.registry().publish(_release("release-1"), {}, {}, files_digest=first.document)
    assert again == first
    other = ports.registry().publish(_release("release-2"), {}, {})
    assert other.version != first.version
    anew = ports.registry().publish(_release("release-1"), {}, {}, files_digest="0" * 64)
    assert anew.version not in (first.version, other.version)
    ports.registry().tag(anew.version, {"a": "b"})


def test_versions_that_are_not_kept_are_destroyed(ports: Ports) -> None:
    gone, kept = (ports.registry().publish(_release(f"release-{n}"), {}, {}) for n in (1, 2))
    record = VersionRecord(
        release=_release("release-2"),
        version=kept.version,
        run_id=kept.run_id,
        model_id=kept.model_id,
        cause="train",
        time=NOW,
        recipe={},
        staleness=0.0,
        document=kept.document,
    )
    for _ in range(2):
        ports.registry().destroy([record], [])
    again = ports.registry().publish(_release("release-2"), {}, {}, files_digest=kept.document)
    assert again == kept
    anew = ports.registry().publish(_release("release-1"), {}, {}, files_digest=gone.document)
    assert anew.version not in (gone.version, kept.version)


# --- Exports


def test_what_is_where_it_was_put_is_destroyed_and_told_again(ports: Ports) -> None:
    here, moved = ports.export("export-1"), ports.export("export-2")
    ports.move_export(moved)
    for _ in range(2):
        assert ports.exports.destroy([here, moved]) == ["export-1"]
    assert not ports.export_is_there(here)


# --- Certificates


def test_what_was_signed_and_is_no_document_is_discarded(ports: Ports) -> None:
    for _ in range(2):
        ports.certificates.discard(["req-that-nobody-asked"])
    assert ports.document_of("req-that-nobody-asked") is None
