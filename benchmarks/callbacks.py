"""Callbacks to a receiver that is slow, answers 503 now and then, and is killed; and whose sender
is killed too: how many a second, and whether one is lost. `make bench-callbacks`, or
python -m benchmarks.callbacks [--requests N --kills N --dir DIR].

A fresh workspace takes `--requests` requests; each is told once. The receiver is a process of its
own on this machine, with TLS, and writes down what it was told before it answers; the sender is
another. Both are killed `--kills` times each while they work, and begun again. The waits between
attempts (5 s, 5 minutes, ...) are passed over by a clock that is set ahead; that a message may not
go to this machine is switched off for it.

Prints one JSON document.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext

from flows.adapters.webhooks import Sender
from flows.use_cases.callbacks import list_callbacks, send_due
from flows.use_cases.taking import take_requests
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from tests.ports import free_ports
from tests.receiver import HOST, certificate_of, sender_to

ROOT = Path(__file__).parents[1]
_TOLD = "told.jsonl"
_SLOWEST_SECONDS = 0.05
_ONE_FAILS_OF = 40
_SECONDS = 5
_STILL_SECONDS = 8.0
_MOST_HOURS = 400


class _Ahead:
    """A clock that is so far ahead."""

    def __init__(self, by: timedelta) -> None:
        self._by = by

    def now(self) -> datetime:
        """The time it says."""
        return datetime.now().astimezone() + self._by


def main() -> None:
    """Measure and tell; `receive` and `send` are the two processes."""
    parser = argparse.ArgumentParser(prog="benchmarks.callbacks")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--dir", default=".bench-callbacks")
    parser.add_argument("--part", choices=["receive", "send"])
    parser.add_argument("--port", type=int)
    parser.add_argument("--ahead", type=int, default=0)
    given = parser.parse_args()
    folder = Path(given.dir).resolve()
    if given.part == "receive":
        _receive(folder, given.port)
    elif given.part == "send":
        _send(folder, timedelta(hours=given.ahead))
    else:
        sys.stdout.write(
            json.dumps(_measured(folder, given.requests, given.kills), indent=1) + "\n"
        )


def _receive(folder: Path, port: int) -> None:
    chance = random.Random(port)  # of how long it takes, and what fails

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # its name in http.server
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            time.sleep(chance.random() * _SLOWEST_SECONDS)
            status = 503 if chance.randrange(_ONE_FAILS_OF) == 0 else 204
            if status == 204:
                line = {"id": self.headers["webhook-id"], "request": body["data"]["id"]}
                with (folder / _TOLD).open("a") as told:
                    told.write(json.dumps(line) + "\n")
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who asked was killed
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "receiver.pem", folder / "receiver.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


def _send(folder: Path, ahead: timedelta) -> None:
    place = Workspace(folder / "w")
    if ahead:
        place.clock = _Ahead(ahead)  # type: ignore[assignment]
    while True:
        send_due(place, sender_to(folder / "receiver.pem", _SECONDS))


def _measured(folder: Path, requests: int, kills: int) -> dict[str, object]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    certificate_of(HOST, folder)
    port = free_ports()["prefect"]
    target = f"https://{HOST}:{port}/hook"
    create_workspace(folder / "w", Config.model_validate({"callbacks": {"targets": [target]}}))
    place = Workspace(folder / "w")
    send_due(place, Sender(1, may_reach=lambda _: False))  # it is told what comes from here on
    taken = {r.request_id for r in take_requests(place, [f"person {n}" for n in range(requests)])}

    def begin(part: str, *more: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "benchmarks.callbacks", "--part", part]
        command += ["--dir", str(folder), "--port", str(port), *more]
        return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})

    running = {"receive": begin("receive"), "send": begin("send")}
    chance, hours, kill, known = random.Random(7), 0, 0, 0
    first = moved = time.monotonic()

    def anew(part: str, *more: str) -> None:
        running[part].send_signal(signal.SIGKILL)
        running[part].wait()
        time.sleep(chance.random())
        running[part] = begin(part, *more)

    try:
        while taken - {line["request"] for line in _told(folder)} and hours < _MOST_HOURS:
            time.sleep(0.2)
            if any(process.poll() is not None for process in running.values()):
                raise SystemExit("benchmarks.callbacks: a part of it ended by itself")
            before, known = known, len(_told(folder))
            first = first if before else time.monotonic()
            moved = time.monotonic() if known > before else moved
            if kill < 2 * kills and known > requests * (kill + 1) // (2 * kills + 1):
                anew(("receive", "send")[kill % 2], *_ahead(hours)[: 2 * (kill % 2)])
                kill += 1
            elif time.monotonic() - moved > _STILL_SECONDS:
                hours += 30  # what is left waits for its next attempt, longest for a day
                anew("send", *_ahead(hours))
                moved = time.monotonic()
        took = time.monotonic() - first
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    told = _told(folder)
    times = Counter(line["id"] for line in told)
    by_request = {line["request"]: line["id"] for line in told}
    return {
        "requests": requests,
        "killed": {"receiver": kills, "sender": kills},
        "lost": len(taken - by_request.keys()),
        "strange": len(by_request.keys() - taken),
        "told_twice": sum(n - 1 for n in times.values()),
        "told_twice_under_another_id": len(set(times)) - len(by_request),
        "dead": len(list_callbacks(place, ["dead"])),
        "seconds": round(took, 1),
        "a_second": round(len(told) / took, 1),
    }


def _ahead(hours: int) -> list[str]:
    return ["--ahead", str(hours)]


def _told(folder: Path) -> list[dict[str, str]]:
    """What the receiver wrote down; a line that a kill cut is none."""
    path, found = folder / _TOLD, []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


if __name__ == "__main__":
    main()
