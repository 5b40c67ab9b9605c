"""The request book must say what the ledger says."""

from dataclasses import asdict, replace

import pytest

from s3t_core.domain import DeletionRequest
from s3t_core.erasure.closing import DocumentProblems, check_book, check_documents
from s3t_core.erasure.state import RequestRecord, State
from s3t_core.errors import LedgerError

REQUESTS = [
    DeletionRequest(f"req-{i}", f"s{i}", "", f"x{i}", "c", "t0", "t1", closed)
    for i, closed in enumerate(["", "doc-1", "doc-2"])
]
STATE = State(
    requests={
        r.request_id: RequestRecord(
            r.subject, "", r.suppression, "c", f"salt {r.request_id}", "t0", "t1", ("t0", "t1")
        )
        for r in REQUESTS
    },
    documents={"req-1": "doc-1", "req-2": "doc-2"},
    suppressed={"x1": ("subject", "req-1")},
)
SALTS = {r.request_id: f"salt {r.request_id}" for r in REQUESTS}
LIST = {"x1": ("subject", "req-1")}


def test_all_three_say_the_same() -> None:
    check_book(STATE, REQUESTS, LIST, SALTS)
    check_book(
        STATE, REQUESTS, LIST, {"req-0": SALTS["req-0"]}
    )  # those of closed requests were destroyed


def test_another_salt_is_noticed() -> None:
    with pytest.raises(LedgerError, match="salt of every commitment"):
        check_book(STATE, REQUESTS, LIST, SALTS | {"req-1": "other"})


def test_the_salt_of_an_open_request_that_is_gone_is_noticed() -> None:
    with pytest.raises(LedgerError, match="none for an open request"):
        check_book(STATE, REQUESTS, LIST, {i: s for i, s in SALTS.items() if i != "req-0"})


@pytest.mark.parametrize(
    "book",
    [
        REQUESTS[1:],
        [*REQUESTS, replace(REQUESTS[0], request_id="req-9")],
        *(
            [replace(REQUESTS[0], **{f: "other"}), *REQUESTS[1:]]
            for f in (
                "subject",
                "record",
                "suppression",
                "commitment",
                "received",
                "due",
                "certificate",
            )
        ),
        [REQUESTS[0], replace(REQUESTS[1], certificate=""), REQUESTS[2]],
    ],
)
def test_whatever_is_in_one_of_them_alone_is_noticed(book: list[DeletionRequest]) -> None:
    with pytest.raises(LedgerError, match="request book"):
        check_book(STATE, book, LIST, SALTS)


@pytest.mark.parametrize(
    "listed",
    [
        {},
        {"x0": ("subject", "req-0"), **LIST},
        {"x1": ("record", "req-1")},
        {"x1": ("subject", "req-2")},
        {"x2": ("subject", "req-1")},
    ],
)
def test_a_suppression_list_that_the_ledger_does_not_make_is_noticed(
    listed: dict[str, tuple[str, str]],
) -> None:
    with pytest.raises(LedgerError, match="suppression list"):
        check_book(STATE, REQUESTS, listed, SALTS)


def test_documents_that_are_gone_or_changed_are_told_apart() -> None:
    on_disk = {"a": "1", "b": "other"}
    state = State(documents={"a": "1", "b": "2", "c": "3"})
    found = check_documents(state, on_disk.get, ["a", "b", "d", "e"], "e".__eq__)
    assert found == DocumentProblems(missing=("c",), changed=("b",), left=("d",), lost=("e",))
    assert [line.startswith("1 closing document(s)") for line in found.sentences()] == [True] * 4
    assert DocumentProblems.of(asdict(found)) == found
    assert check_documents(State(documents={"a": "1"}), on_disk.get, ["a"], bool).sentences() == []
