"""Messages to other systems, signed as Standard Webhooks 1.0 has it (standardwebhooks.com):
`webhook-id`, `webhook-timestamp` (seconds since 1970) and `webhook-signature`, which is `v1,` and
the base64 of HMAC-SHA256 over id, timestamp and body, with points between them.

1. A message goes to hosts that a name resolves to, all of them public (is_public): not to this
   machine, a private network, or what a cloud keeps at a link-local address. The connection is made
   to the address that was looked at, and the certificate is the name's.
2. Redirects are not followed, no proxy is asked, and nothing of an answer but its status is read.
3. An attempt ends after so many seconds, whatever the other side does meanwhile.
"""

import asyncio
import base64
import hmac
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Literal

import httpx

Outcome = Literal["delivered", "gone", "failed"]
Resolve = Callable[[str, int], Awaitable[list[str]]]
SECRET_PREFIX = "whsec_"  # noqa: S105  # what secrets begin with
_MOST_WAIT = timedelta(hours=24)
_EMBEDDED = [
    (ipaddress.ip_network(network), shift)
    for network, shift in (
        ("64:ff9b::/96", 0),  # RFC 6052
        ("::/96", 0),  # RFC 4291, 2.5.5.1
        ("2002::/16", 80),  # RFC 3056
    )
]
"""Networks whose addresses have one of IPv4 in them, and how many bits stand behind it."""
_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")  # RFC 8215
_NOBODYS = [
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # RFC 6890; what Oracle's machines are told about themselves by
        "192.88.99.0/24",  # RFC 7526
        "168.63.129.16/32",  # what Azure's are
        "fec0::/10",  # RFC 3879
        "3fff::/20",  # RFC 9637
        "5f00::/16",  # RFC 9602
    )
]
"""Networks that not every release of Python takes for what they are."""
_RESOLVERS = ThreadPoolExecutor(8, "resolver")
"""Names are asked for apart from what waits for them: a resolver that hangs holds up nobody."""


@dataclass(frozen=True)
class Answer:
    """What an attempt came to, in a word of ours; `wait`: how long the other side asks for."""

    outcome: Outcome
    summary: str
    wait: timedelta = timedelta()


class Sender:
    """Sends messages, several at once."""

    def __init__(
        self,
        seconds: float,
        trusts: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
        may_reach: Callable[[str], bool] | None = None,
    ) -> None:
        """`trusts`: whose certificates, what this machine trusts by default; `resolve`: the
        addresses of a name; `may_reach`: whether a message may go to one."""
        self._seconds = seconds
        self._trusts = trusts or ssl.create_default_context()
        self._resolve = resolve or _addresses
        self._may_reach = may_reach or is_public

    async def send(
        self,
        url: str,
        headers: dict[str, str],
        body: bytes,
    ) -> Answer:
        """Post a message once. Raises nothing that the URL, the other side, or the way there can
        cause."""
        try:
            return await asyncio.wait_for(self._send(httpx.URL(url), headers, body), self._seconds)
        except TimeoutError:
            return Answer("failed", "no answer in time")
        except (httpx.InvalidURL, ValueError):
            return Answer("failed", "no URL that can be asked")

    async def _send(
        self,
        url: httpx.URL,
        headers: dict[str, str],
        body: bytes,
    ) -> Answer:
        name = url.raw_host.decode("ascii")  # as it is in DNS: Python would read an IDN otherwise
        try:
            addresses = await self._resolve(name, url.port or 443)
        except (OSError, UnicodeError):
            return Answer("failed", "no such host")
        if not addresses or not all(map(self._may_reach, addresses)):
            return Answer("failed", "address not public")
        there = url.copy_with(host=addresses[0])
        asked = {**headers, "host": url.netloc.decode("ascii"), "user-agent": "s3t"}
        try:
            async with (
                httpx.AsyncClient(verify=self._trusts, trust_env=False, timeout=None) as client,  # noqa: S113  # wait_for
                client.stream(
                    "POST",
                    there,
                    content=body,
                    headers=asked,
                    extensions={"sni_hostname": name},
                ) as response,
            ):
                return _answer(response)
        except httpx.ConnectError as error:
            is_certificate = "CERTIFICATE" in str(error).upper()
            return Answer(
                "failed", "certificate not trusted" if is_certificate else "no connection"
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
            return Answer("failed", "connection broke")


def signed(
    secret: bytes,
    message: str,
    at: datetime,
    body: bytes,
) -> dict[str, str]:
    """The headers of a message that is sent at that time."""
    stamp = str(int(at.timestamp()))
    seen = b".".join((message.encode(), stamp.encode(), body))
    signature = base64.b64encode(hmac.digest(secret, seen, "sha256")).decode()
    return {
        "content-type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{signature}",
    }


def secret_text(secret: bytes) -> str:
    """A secret as its receiver is given it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def is_public(address: str) -> bool:
    """Whether an address is one of the internet's that anybody may reach: none of this machine, of
    a private network, link-local, multicast or reserved (RFC 6890), nor one that stands for such a
    one."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or (found.teredo[1] if found.teredo else None)
        for network, shift in _EMBEDDED:
            if found in network:
                inner = ipaddress.IPv4Address((int(found) >> shift) & 0xFFFFFFFF)
        if inner is not None or found in _LOCAL:
            return inner is not None and is_public(str(inner))
    if any(found in network for network in _NOBODYS if network.version == found.version):
        return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def _answer(response: httpx.Response) -> Answer:
    status = response.status_code
    if 200 <= status < 300:
        return Answer("delivered", str(status))
    if status == 410:  # it wants no more of it
        return Answer("gone", "410")
    return Answer("failed", str(status), _wait_of(response))


def _wait_of(response: httpx.Response) -> timedelta:
    """What Retry-After asks for (RFC 9110, section 10.2.3), within bounds."""
    asked = response.headers.get("retry-after", "")
    try:
        if asked.isascii() and asked.isdigit():
            return min(timedelta(seconds=int(asked[:9])), _MOST_WAIT)
        at = parsedate_to_datetime(asked)
        return min(max(at - datetime.now(at.tzinfo), timedelta()), _MOST_WAIT)
    except (ValueError, TypeError, OverflowError):
        return timedelta()


async def _addresses(host: str, port: int) -> list[str]:
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_RESOLVERS, ask)
    return [str(address[0]) for *_, address in found]
