"""Connections that a server of ours has at once, whoever makes them; and what waits to be sent.

Who has no credential can still connect, and say nothing, or half a request. Such a one is waited
for a while; there are at most so many at once, and one more takes the place of the one that has
waited longest: never that of somebody whose request is being answered.

Who has asked can still read slowly, or not at all. What was not taken yet lies here, and not in the
operating system, so that whoever writes an answer piece by piece knows that a piece has left; and
whoever takes next to nothing of it for a while is not waited for.
"""

import asyncio
import logging
import resource
import socket
from collections.abc import Callable
from typing import Any

from uvicorn import Server
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
"""A request's line and headers come within so many seconds."""
READ_SECONDS = 60.0
"""Within so many, whoever is sent something takes some of it."""
_LEAST_READ = 2**16
"""That is so many bytes, or all."""
_UNSENT_BYTES = 2**14
"""So many the operating system keeps of a connection that it has not sent yet."""
_NOTSENT_LOWAT = 25
"""TCP_NOTSENT_LOWAT of Linux (tcp(7)), which Python names from 3.12 on."""
_MOST_WAITING = 512
_MOMENT = 0.5
_OTHER_FILES = 64
"""What a server has open besides connections."""
_log = logging.getLogger("uvicorn.error")


def most_waiting() -> int:
    """So many connections may be there that no whole request came by, twice as many for a moment:
    in all as many as files that this process may have open, and no more than are of use."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, min(_MOST_WAITING, (files - _OTHER_FILES) // 2))


class Patience(H11Protocol):
    """One connection, closed where no request comes by it in time. Each server has a class of its
    own (patience)."""

    seconds: float
    most: int
    reading: float
    waiting: "dict[Patience, asyncio.TimerHandle]"
    """Those of this server that no whole request came by, the one that has waited longest first."""
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        _keep_little(transport)
        while len(self.waiting) >= self.most and self._makes_room():
            pass
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._wait_no_more()
        self._read_again()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """See asyncio.Protocol: something lies here that was not taken yet."""
        super().pause_writing()
        self._want_read()

    def resume_writing(self) -> None:
        """See asyncio.Protocol: all of it was taken."""
        self._read_again()
        super().resume_writing()

    def _want_read(self) -> None:
        lies = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(self.reading, self._look_read, lies)

    def _look_read(self, before: int) -> None:
        if before - self.transport.get_write_buffer_size() < _LEAST_READ:
            self.transport.abort()
        else:
            self._want_read()

    def _read_again(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self not in self.waiting and self._is_between_requests():
            self._wait()
        super().data_received(data)
        if not self._is_between_requests() or self.transport.get_protocol() is not self:
            self._wait_no_more()

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _makes_room(self) -> bool:
        """Whether the one that has waited longest was sent away. One that came just now may have
        said what nobody read yet: it stays, unless they are twice as many as may be."""
        longest, timer = next(iter(self.waiting.items()))
        waited = self.loop.time() - (timer.when() - self.seconds)
        goes = waited > _MOMENT or len(self.waiting) >= 2 * self.most
        if goes:
            self.waiting.pop(longest).cancel()
            longest.transport.abort()
        return goes

    def _wait(self) -> None:
        self.waiting[self] = self.loop.call_later(
            self.seconds,
            self.transport.abort,
        )

    def _wait_no_more(self) -> None:
        timer = self.waiting.pop(self, None)
        if timer is not None:
            timer.cancel()


class Patient(Server):
    """A server that waits a while for what begins TLS, and says once a minute, and not each time,
    that it can take no more connections."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server."""
        loop: Any = asyncio.get_running_loop()
        loop.set_exception_handler(_quiet())
        listen = loop.create_server

        async def listen_patiently(*args: Any, **given: Any) -> asyncio.Server:
            bound = {"ssl_handshake_timeout": HEADER_SECONDS} if given.get("ssl") else {}
            server: asyncio.Server = await listen(*args, **given, **bound)
            return server

        loop.create_server = listen_patiently
        await super().serve(sockets)


def _quiet() -> Callable[[asyncio.AbstractEventLoop, dict[str, object]], None]:
    said = float("-inf")

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        nonlocal said
        if not isinstance(context.get("exception"), OSError):
            loop.default_exception_handler(context)
        elif loop.time() - said > 60:
            said = loop.time()
            _log.warning("Connections that could not be taken, or broke: too many at once?")

    return handle


def _keep_little(transport: asyncio.Transport) -> None:
    """Have whoever writes wait as soon as anything was not taken yet."""
    transport.set_write_buffer_limits(high=1, low=0)
    made = transport.get_extra_info("socket")
    if made is not None and made.family in (socket.AF_INET, socket.AF_INET6):
        made.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _UNSENT_BYTES)


def patience() -> type[Patience]:
    """The protocol of a new server of this process."""
    bounds = {
        "seconds": HEADER_SECONDS,
        "most": most_waiting(),
        "reading": READ_SECONDS,
        "waiting": {},
    }
    return type("PatienceOfOne", (Patience,), bounds)
