"""Kill the eraser with SIGKILL at random times until it is done, over and over; one JSON line about
each time. With STEP it is killed once before each STEPth of its writes instead, and then let
finish: what is wrong for half a millisecond is not met by chance.

    python -m tests.crash.driver WORKSPACE KILLS SEED [STEP]

WORKSPACE is prepared: trained, with requests pending. It is put back before each trial. The eraser
runs in a forked process with every import done, on the real database, DVC repository, MLflow
registry, stage store, needles, scan and certificates; only the measuring (a process
with torch, which decides nothing) is left out.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from flows.use_cases.verifying import verify_path
from flows.workspace import access
from flows.workspace.composing import erase_policy, erase_ports
from flows.workspace.sweeping import sweep
from flows.workspace.workspace import Workspace, enter
from s3t_core.domain import Combine, Release, Score
from s3t_core.erasure.executor import Eraser
from tests.held import HELD

_PER_TRIAL = 6
"""Kills before a trial's eraser is let finish."""
_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = frozenset(
    f"os.{name}"
    for name in ("mkdir", "rmdir", "rename", "remove", "link", "symlink", "truncate", "chmod")
)


class Unmeasured:
    """Fills the port `Evaluator`: nothing is held out, as it were."""

    def score(self, release: Release, recipe: dict[str, Any], combine: Combine) -> Score | None:
        return None


@dataclass
class Driver:
    """One workspace, put back before each trial."""

    root: Path
    chance: random.Random
    kept: Path
    seconds: float = 0.0
    kills: int = 0
    during: dict[str, int] = field(default_factory=dict)

    def put_back(self) -> None:
        shutil.rmtree(self.root)
        shutil.copytree(self.kept, self.root, symlinks=True)

    def begin(self) -> int:
        """Fork an eraser; its process group is its own, so that git and whatever it starts die with
        it."""
        return _forked(lambda: _erase(self.root))

    def whole(self) -> None:
        """Let one run, unharmed. Raises AssertionError when it fails."""
        _, status = os.waitpid(self.begin(), 0)
        assert os.waitstatus_to_exitcode(status) == 0, "a run that was not killed failed"

    def killed(self) -> bool:
        """Kill one at a random time; False when it was done before."""
        child = self.begin()
        time.sleep(self.chance.uniform(0, self.seconds))
        done, _ = os.waitpid(child, os.WNOHANG)
        if done:
            return False
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self.kills += 1
        state = Workspace(self.root).ledger.state()
        at = next(
            (
                s
                for s in ("certify", "scan", "measure", "destroy", "rewrite", "cut over")
                if s in state.steps
            ),
            ("plan" if state.plan else "all" if state.certified else "nothing"),
        )
        self.during[at] = self.during.get(at, 0) + 1
        return True

    def killed_before(self, write: int) -> str:
        """Kill one before its `write`th write, from 1; which it was, "" when it made fewer."""
        reading, writing = os.pipe()
        child = _forked(lambda: _erase_until(self.root, write, writing))
        os.close(writing)
        with os.fdopen(reading) as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, -signal.SIGKILL), "a run that was not killed failed"
        self.kills += code != 0
        return told

    def found(self) -> Any:
        """What `_found` finds, looked up in a process of its own: connections must not live on in
        the next eraser."""
        reading, writing = os.pipe()
        child = _forked(lambda: os.write(writing, json.dumps(_found(self.root)).encode()))
        os.close(writing)
        with os.fdopen(reading) as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, "what an erasure left is not as it must be"
        return json.loads(told)


def _forked(work: Callable[[], object]) -> int:
    """The id of a process, and process group, that does the work and ends with 0, or says why not
    and ends with 1."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            sys.stderr.flush()
            os._exit(code)
    with contextlib.suppress(OSError):
        os.setpgid(
            child, child
        )  # whoever comes first: it may be killed before it could do it itself
    return child


def _found(root: Path) -> dict[str, Any]:
    """What is there after an erasure, and that nothing is wrong with it."""
    place = enter(root)
    state = place.ledger.state()  # every leaf, and every checkpoint, verified
    asked = [e["request"] for e in place.ledger.events() if e["type"] == "request"]
    certified = [e["request"] for e in place.ledger.events() if e["type"] == "certified"]
    assert sorted(certified) == sorted(asked), "expected exactly one certificate per request"
    assert sorted(p.stem for p in place.certificates_dir.glob("*.json")) == sorted(asked)
    assert verify_path(place.certificates_dir, place.keys_dir / "signing.pub")["valid"]
    assert place.requests.open_now() == [] and state.plan is None
    assert not list((place.state_dir / "needles").iterdir()), "expected no needles"
    release, dataset = state.release, state.dataset
    assert release is not None and dataset is not None
    held = sorted(place.store.digests())
    assert held == sorted({s.digest for s in state.stages.values()})
    assert {s.digest for r in release.replicas for s in r.stages} <= set(held)
    kept = {p.parent.name for p in (place.state_dir / "activations").glob("*/*")}
    assert kept <= {v.digest for v in dataset.files()}, (
        "activations of a slice version that is no more"
    )
    client = place.registry.connection.client
    alias = client.get_model_version_by_alias(place.config.system.name, "champion")
    assert state.champion is not None and str(alias.version) == state.champion.version
    assert alias.tags["s3t.release"] == release.release_id
    versions = {str(v.version) for v in client.search_model_versions("")}
    assert versions == {v.version for v in state.versions if not v.destroyed}, (
        "versions that are not kept"
    )
    return {
        "stages": held,
        "depths": [[s, release.live_depth(s)] for s in release.shards()],
        "data": dataset.version,
    }


def _erase(root: Path) -> None:
    place = enter(root)
    with access.changing(place, 60):
        sweep(place, HELD)
        ports = replace(erase_ports(place, HELD), evaluator=Unmeasured())
        eraser = Eraser(ports, erase_policy(place), lambda: f"plan-{uuid.uuid4().hex[:16]}")
        while eraser.run() is not None:
            pass
        place.signing.write_checkpoint()


def _erase_until(root: Path, write: int, told: int) -> None:
    """Erase, and end as by a kill before the `write`th time that a file is opened to be written,
    made, renamed, linked or removed, or a transaction committed."""
    writes = iter(range(1, write))

    def ends(what: str) -> None:
        if next(writes, None) is None:
            os.write(told, what.encode())
            os.killpg(0, signal.SIGKILL)

    def heard(name: str, given: tuple[Any, ...]) -> None:
        is_opened = name == "open" and isinstance(given[0], str) and given[2] & _TO_WRITE
        if (is_opened or name in _CHANGES) and given[0] != "/dev/null":
            ends(f"{name} {given[0]}".replace(str(root), ""))

    sys.addaudithook(heard)
    event.listen(Engine, "commit", lambda _: ends("commit"))
    _erase(root)


def _tell(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the trials; the last line sums up."""
    root, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    step = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    kept = root.with_name(f"{root.name}-kept")
    shutil.copytree(root, kept, symlinks=True)
    import flows.adapters.datasets
    import flows.adapters.registry.opening  # noqa: F401  # imported once, before anything is forked

    driver = Driver(root, random.Random(seed), kept)
    driver.whole()
    expected = driver.found()
    driver.put_back()
    started = time.monotonic()
    driver.whole()
    driver.seconds = time.monotonic() - started
    _tell({"expected": expected["depths"], "seconds": round(driver.seconds, 2)})
    trials = 0
    if step:
        write = 1 + seed % step
        driver.put_back()
        while at := driver.killed_before(write):
            driver.whole()
            assert driver.found() == expected, f"killed before write {write} ({at}) ended otherwise"
            driver.put_back()
            write += step
        _tell({"kills": driver.kills, "writes": write})
        return
    while driver.kills < kills:
        driver.put_back()
        trials += 1
        for _ in range(_PER_TRIAL):
            if not driver.killed():
                break
        driver.whole()
        assert driver.found() == expected, f"trial {trials} of seed {seed} ended otherwise"
    _tell({"kills": driver.kills, "trials": trials, "last completed": driver.during})


if __name__ == "__main__":
    main()
