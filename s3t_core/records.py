"""The data canon: what a record, a slice and their digests are (method.md, "What the data is").

A slice is the *set* of its records, sorted by keyed record digest. Its digest is an HMAC over
canonical row encodings, never over file bytes, because file bytes depend on row groups and on
source order, that is on other people's rows. A row holds the text, the label and keyed digests; raw
ids never reach a data file.
"""

import hmac
from collections.abc import Iterable
from typing import NamedTuple

from s3t_core.keys import NamingKeys, WorkspaceKeys, encode_fields, keyed_digest


class Row(NamedTuple):
    """One training example. `record` and `subject` are keyed digests (64 hex digits); ordered by
    `record`."""

    record: str
    subject: str
    text: str
    label: str


def subject_digest(keys: NamingKeys, subject: str) -> str:
    """The keyed digest that stands for a data subject in data files and in the ledger."""
    return keyed_digest(keys.subject, "subject", subject).hex()


def record_digest(
    keys: NamingKeys,
    subject: str,
    record_id: str,
) -> str:
    """The keyed digest of a record that has an id. Ids are unique within their subject only."""
    return keyed_digest(
        keys.subject,
        "record",
        subject,
        record_id,
    ).hex()


def content_record_digest(
    keys: WorkspaceKeys,
    row: tuple[str, str, str],
    held_out: bool,
    count: int,
) -> str:
    """The keyed digest of a record without an id: its content (subject digest, text, label), on
    which side of the held-out split it is, and how many equal ones came before. Equal rows are
    interchangeable, so order is no matter."""
    return keyed_digest(
        keys.subject, "content", *row, "held-out" if held_out else "training", str(count)
    ).hex()


def row_commitment(
    keys: WorkspaceKeys,
    request_id: str,
    row: Row,
) -> str:
    """What a certificate holds for one erased row. Whoever has the key and a copy of the row can
    show that this very row was erased; without the key it says nothing, and two requests have
    nothing in common."""
    return keyed_digest(
        keys.commitment, "row", request_id, row.record, row.subject, row.text, row.label
    ).hex()


def slice_digest(keys: WorkspaceKeys, rows: Iterable[Row]) -> str:
    """HMAC-SHA256 over the canonical encodings of a slice's rows, in record order. Equal sets,
    equal digests."""
    mac = hmac.new(keys.content, digestmod="sha256")
    for row in sorted(rows):
        mac.update(
            encode_fields(
                row.record,
                row.subject,
                row.text,
                row.label,
            )
        )
    return mac.hexdigest()
