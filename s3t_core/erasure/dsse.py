"""DSSE envelopes (secure-systems-lab/dsse v1) with Ed25519 (RFC 8032).

DSSE JSON as written is malleable: white space, `keyid` and base64 spellings are not signed. So an
envelope is written canonically, and the verifier re-serialises what it parsed and compares bytes:
any changed byte is detected.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from s3t_core.canonical import canonical_json, sha256_hex
from s3t_core.errors import CertificateError, UnknownSigner

PAYLOAD_TYPE = "application/vnd.in-toto+json"


def key_id(public: Ed25519PublicKey) -> str:
    """SHA-256 of the raw public key, hex."""
    return sha256_hex(public.public_bytes(Encoding.Raw, PublicFormat.Raw))


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """PAE(type, body): the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign(statement: Mapping[str, object], private: Ed25519PrivateKey) -> bytes:
    """The statement in a signed envelope, canonical JSON."""
    payload = canonical_json(statement)
    signature = private.sign(pre_authentication(PAYLOAD_TYPE, payload))
    return canonical_json(
        _envelope(
            payload,
            key_id(private.public_key()),
            signature,
        )
    )


def verify(envelope: bytes, *publics: Ed25519PublicKey) -> dict[str, Any]:
    """The statement, when every check passes; raises CertificateError otherwise
    (`verify_signed`)."""
    return verify_signed(envelope, *publics)[0]


def verify_signed(envelope: bytes, *publics: Ed25519PublicKey) -> tuple[dict[str, Any], str]:
    """The statement and the id of the key that signed it, when every check passes; raises
    CertificateError otherwise.

    1. the envelope parses, with one signature and the expected payload type
    2. the key id is that of one of `publics`
    3. the signature is over the payload
    4. envelope and payload are, byte for byte, their canonical spelling
    """
    try:
        parsed = json.loads(envelope)
        payload = base64.b64decode(parsed["payload"], validate=True)
        (signature,) = parsed["signatures"]
        raw = base64.b64decode(signature["sig"], validate=True)
        if parsed["payloadType"] != PAYLOAD_TYPE:  # 1
            raise CertificateError(f"expected payload type {PAYLOAD_TYPE}, got another")
        public = next((k for k in publics if key_id(k) == signature["keyid"]), None)
        if public is None:  # 2
            named = " or ".join(f"{key_id(k)[:16]}..." for k in publics)
            raise UnknownSigner(
                f"expected a signature by key {named}, got one by another key; ask the controller "
                "for the public key that was in use"
            )
        public.verify(raw, pre_authentication(PAYLOAD_TYPE, payload))  # 3
        statement: dict[str, Any] = json.loads(payload)
        canonical = canonical_json(statement) == payload
    except InvalidSignature:
        raise CertificateError(
            "expected a valid signature, got one that does not match the content: the certificate "
            "was changed after signing"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise CertificateError(
            f"expected a DSSE envelope with one signature, got something else "
            f"({type(error).__name__})"
        ) from None
    if (
        not canonical or canonical_json(_envelope(payload, signature["keyid"], raw)) != envelope
    ):  # 4
        raise CertificateError(
            "expected the canonical spelling of the envelope, got another: it was changed after "
            "signing"
        )
    return statement, signature["keyid"]


def statement_of(envelope: bytes) -> dict[str, Any]:
    """The statement of an envelope that this system wrote, unverified. Raises CertificateError when
    it has none."""
    try:
        payload = base64.b64decode(json.loads(envelope)["payload"])
        statement: dict[str, Any] = json.loads(payload)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CertificateError("expected a DSSE envelope, got something else") from None
    return statement


def _envelope(
    payload: bytes,
    keyid: str,
    signature: bytes,
) -> dict[str, object]:
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
    }
