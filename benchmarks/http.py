"""The HTTP door: durable acceptances a second, and pages of a long book. `make bench-http`, or
python -m benchmarks.http [--requests N --clients N --seconds S --dir DIR].

A fresh workspace whose book holds `--requests` open requests; the door is a process of its own, and
so is who asks, on the same machine: the two share its cores. A request is asked for by each client
as soon as its last one was accepted.

Prints one JSON document: what was measured, with the requests there were, a second and in
milliseconds.
"""

import argparse
import asyncio
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from flows.use_cases.taking import take_requests
from flows.use_cases.tokens import make_token
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace, enter
from s3t_core.config import Config

_S3T = str(Path(sys.executable).with_name("s3t"))
_PORT = 4981
_URL = f"http://127.0.0.1:{_PORT}/api/v1"
_PAGES = ("requests?limit=100", "requests?state=pending&limit=100", "requests?due_within=7")
_AT_ONCE = 50_000


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(prog="benchmarks.http")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--dir", default=".bench-http")
    given = parser.parse_args()
    folder = Path(given.dir).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    limits = {"port": _PORT, "per_minute": 10_000_000, "most_seconds": 600.0}
    create_workspace(folder, Config.model_validate({"api": limits}))
    place = enter(folder)
    for begin in range(0, given.requests, _AT_ONCE):
        many = range(begin, min(begin + _AT_ONCE, given.requests))
        take_requests(place, [f"person {n}" for n in many])
    token = make_token(place, "bench", ["asks", "audits"], 1)["token"]
    door = subprocess.Popen([_S3T, "api", "--workspace", str(folder)], stderr=subprocess.DEVNULL)
    try:
        asyncio.run(_wait(token))
        told = asyncio.run(_measured(token, given.clients, given.seconds))
    finally:
        door.terminate()
        door.wait()
    told["requests_at_the_end"] = len(Workspace(folder).requests.open_now())
    sys.stdout.write(json.dumps({"requests_at_first": given.requests, **told}, indent=1) + "\n")


async def _wait(token: str) -> None:
    async with _client(token, 1) as client:
        for _ in range(600):
            try:
                (await client.get(f"{_URL}/token")).raise_for_status()
                return
            except httpx.TransportError:
                await asyncio.sleep(0.1)
    raise SystemExit("the door did not open")


def _client(token: str, connections: int) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(
        headers={"Authorization": f"Bearer {token}"}, limits=limits, timeout=600
    )


async def _measured(token: str, clients: int, seconds: float) -> dict[str, Any]:
    async with _client(token, clients) as client:

        async def ask(who: int, number: int) -> None:
            body = {"subjects": [f"new {who} {number}"]}
            (await client.post(f"{_URL}/requests", json=body)).raise_for_status()

        async def look(page: str) -> None:
            (await client.get(f"{_URL}/{page}")).raise_for_status()

        await asyncio.gather(*(ask(n, -1) for n in range(clients)))
        begun = time.perf_counter()
        took = [
            t
            for each in await asyncio.gather(
                *(_again(lambda n, who=who: ask(who, n), seconds) for who in range(clients))  # type: ignore[misc]
            )
            for t in each
        ]
        lasted = time.perf_counter() - begun
        pages = {page: await _again(lambda _, page=page: look(page), 2) for page in _PAGES}  # type: ignore[misc]
    return {
        "clients": clients,
        "accepted_per_second": round(len(took) / lasted, 1),
        "accepted_ms": _percentiles(took),
        "pages_ms": {page: _percentiles(found) for page, found in pages.items()},
    }


async def _again(act: Callable[[int], Awaitable[None]], seconds: float) -> list[float]:
    """How long it took each time, one after the other, for so long."""
    took, end, number = list[float](), time.perf_counter() + seconds, 0
    while not took or time.perf_counter() < end:
        begun = time.perf_counter()
        await act(number)
        took.append(time.perf_counter() - begun)
        number += 1
    return took


def _percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        name: round(1000 * ordered[max(0, math.ceil(share * len(ordered)) - 1)], 1)
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }


if __name__ == "__main__":
    main()
