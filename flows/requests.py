"""Take deletion requests: durable before they are acknowledged. The id as given goes to a 0600 file, nowhere else."""

import hmac
import uuid
from datetime import timedelta

from flows.adapters.database import new_salt
from flows.wiring import Workspace
from s3t_core.domain import DeletionRequest
from s3t_core.erasure.planner import rfc3339
from s3t_core.errors import UsageError
from s3t_core.records import record_digest, subject_digest
from s3t_core.snapshot import suppression_digest


def take_requests(place: Workspace, subjects: list[str], record: str = "") -> list[DeletionRequest]:
    """One request per distinct subject (or for one record of one subject). Asked twice while pending: one request.

    Raises UsageError for an empty or over-long id, or a record id where the data has none.
    """
    distinct = list(dict.fromkeys(subjects))
    if not distinct:
        raise UsageError("expected at least one subject id, got none")
    _check_ids(place, distinct, record)
    return [_take(place, subject, record) for subject in distinct]


def _check_ids(place: Workspace, subjects: list[str], record: str) -> None:
    longest = place.config.data.max_id_bytes
    for what, value in [*(("subject", s) for s in subjects), *([("record", record)] if record else [])]:
        size = len(value.encode(errors="surrogatepass"))
        if not value or size > longest:
            raise UsageError(f"expected a {what} id of 1 to {longest} bytes, got {size}; nothing was accepted")
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise UsageError(f"expected a {what} id in UTF-8, got other bytes; nothing was accepted")
    if record and len(subjects) != 1:
        raise UsageError(f"expected one subject with --record, got {len(subjects)}")
    if record and not place.config.data.record:
        raise UsageError('expected [data] record in s3t.toml to name the id column, got ""; without record ids only a '
                         "whole subject can be erased")


def _take(place: Workspace, subject: str, record: str) -> DeletionRequest:
    keys = place.keys
    received = place.clock.now()
    salt = new_salt()
    request = DeletionRequest(
        request_id=f"req-{uuid.uuid4().hex[:16]}",
        subject=subject_digest(keys, subject),
        record=record_digest(keys, subject, record) if record else "",
        suppression=suppression_digest(keys, subject, record),
        commitment=commitment(keys.commitment, salt, subject, record),
        received=rfc3339(received),
        due=rfc3339(received + timedelta(days=place.config.erasure.deadline_days)),
    )
    place.needles.keep_id(request.request_id, [record or subject])
    accepted = place.requests.accept(request, salt, {
        "type": "request", "time": request.received, "request": request.request_id, "subject": request.subject,
        "record": request.record, "due": request.due})
    if accepted.request_id != request.request_id:
        place.needles.destroy(request.request_id, [])
    return accepted


def commitment(key: bytes, salt: str, subject: str, record: str = "") -> str:
    """The salted commitment that a certificate holds: HMAC-SHA256(key, salt || id). Without key and salt it says
    nothing; destroying the salt makes it unopenable for ever."""
    message = bytes.fromhex(salt) + subject.encode() + (b"\x00" + record.encode() if record else b"")
    return hmac.digest(key, message, "sha256").hex()
