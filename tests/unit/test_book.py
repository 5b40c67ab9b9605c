"""The request book must say what the ledger says."""

from dataclasses import replace

import pytest

from s3t_core.domain import DeletionRequest
from s3t_core.erasure.closing import check_book
from s3t_core.errors import LedgerError

REQUESTS = [DeletionRequest(f"req-{i}", f"s{i}", "", f"x{i}", "c", "t0", "t1", closed)
            for i, closed in enumerate(["", "doc-1", "doc-2"])]
EVENTS = [*({"type": "request", "request": r.request_id, "subject": r.subject, "record": "", "time": "t0", "due": "t1"}
            for r in REQUESTS),
          {"type": "certified", "request": "req-1", "certificate": "doc-1"},
          {"type": "closed", "request": "req-2", "certificate": "doc-2"}]


def test_both_say_the_same() -> None:
    check_book(EVENTS, REQUESTS)


@pytest.mark.parametrize("book", [
    REQUESTS[1:], [*REQUESTS, replace(REQUESTS[0], request_id="req-9")],
    *([replace(REQUESTS[0], **{f: "other"}), *REQUESTS[1:]]
      for f in ("subject", "record", "received", "due", "certificate")),
    [REQUESTS[0], replace(REQUESTS[1], certificate=""), REQUESTS[2]]])
def test_whatever_is_in_one_of_them_alone_is_noticed(book: list[DeletionRequest]) -> None:
    with pytest.raises(LedgerError, match="request book"):
        check_book(EVENTS, book)
