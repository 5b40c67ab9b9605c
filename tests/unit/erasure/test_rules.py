"""Every event in every state: what the ledger takes and what it refuses, one table; and the shape
of each event.

A history of one request for each (from nothing to its certificate) is cut after each of its parts;
every event is tried there. What is not in LEGAL is refused, by whoever appends and by whoever
reads.
"""

import itertools
import re
from dataclasses import fields, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from s3t_core.domain import DatasetVersion, Release, Replica, SliceId, SliceVersion, StageRecord
from s3t_core.erasure import ledger, rules
from s3t_core.erasure.dataset_json import dataset_to_json
from s3t_core.erasure.event_reader import from_json
from s3t_core.erasure.expected import NotAllowed
from s3t_core.erasure.ledger import corrected, fold
from s3t_core.erasure.offline import VOUCHED, key_id
from s3t_core.erasure.rules import KINDS, check
from s3t_core.erasure.state import State
from s3t_core.erasure.vocabulary import STEPS, Event
from s3t_core.errors import LedgerError
from s3t_core.release_json import release_to_json, stage_to_json
from tests.faults.carried import OUTCOMES, plan_for

NOW, EARLIER, DUE = "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
OLD, NEW, THIRD, APART, ELSEWHERE = (
    Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(1, 6)
)
A = StageRecord("key a", "digest a", 0, (0,), ("content 0",))
B = StageRecord("key b", "digest b", 0, (1,), ("content 1",))
C = StageRecord("key c", "digest c", 0, (0,), ("content 0 later",))
DOCUMENT = "0" * 64
KEY = "1" * 64
"""The digest of an idempotency key."""


def _data(version: str) -> DatasetVersion:
    files = {
        SliceId(0, i): SliceVersion(f"content {i} {version}", 1, f"md5 {i} {version}")
        for i in range(2)
    }
    return DatasetVersion(version, 1, 2, files, SliceVersion("held out", 0, "md5 held out"))


def _release(name: str, *stages: StageRecord) -> Release:
    return Release(name, "d1", tuple(Replica(0, n, s.prefix, (s,)) for n, s in enumerate(stages)))


def _extended(due: str) -> Event:
    return {"type": "extended", "request": "q1", "due": due, "reason": "a reason", "by": "x"}


def _registered(version: str, cause: str, release: Release) -> Event:
    return {
        "type": "release",
        "cause": cause,
        "release": release_to_json(release),
        "recipe": {},
        "version": version,
        "run_id": f"run {version}",
        "model_id": f"m-{version}",
        "staleness": 1.0,
        "document": DOCUMENT,
    }


def _measured(accuracy: float | None = None, **score: object) -> Event:
    """A measurement of r1 that tells more than an accuracy."""
    told = {"metric": "macro_f1", "value": 0.5, "higher_is_better": True, "low": None, "high": None}
    return {"type": "measured", "release": "r1", "accuracy": accuracy, "score": told | score}


def _other(combine: str, **score: object) -> Event:
    """The same rows, answered another way."""
    told: Event = _measured(combine=combine)["score"]
    return told | score


def _asked(request: str) -> Event:
    return {
        "type": "request",
        "request": request,
        "subject": f"subject of {request}",
        "record": "",
        "due": DUE,
        "suppression": f"suppression of {request}",
        "commitment": "c",
        "salt": "s",
        "near": ["n"],
        "asked_by": "id",
        "forms": [],
        "id_rule": [],
        "ids": ["i"],
        "once": "",
    }


def _step(name: str) -> Event:
    outcome = (
        {**OUTCOMES[name], "stages": ["key a"], "versions": ["1"]}
        if name == "destroy"
        else OUTCOMES[name]
    )
    return {"type": "step", "step": name, "plan_id": "p", **outcome}


def _key(old: Ed25519PrivateKey, new: Ed25519PrivateKey, **changed: Any) -> Event:
    raw, ids = (
        old.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
        [key_id(k.public_key()) for k in (old, new)],
    )
    return {
        "type": "key",
        "old": ids[0],
        "new": ids[1],
        "by": "x",
        "lost": False,
        "old_public": raw.hex(),
        "vouched": old.sign(VOUCHED + bytes.fromhex(ids[1])).hex(),
        **changed,
    }


def _intake(private: Ed25519PrivateKey, **changed: Any) -> Event:
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {
        "type": "intake",
        "state": "added",
        "key": key_id(private.public_key()),
        "public": raw.hex(),
        "seals_to": "0b" * 32,
        "called": "web",
        "by": "officer",
        **changed,
    }


def _intake_removed(private: Ed25519PrivateKey) -> Event:
    known = key_id(private.public_key())
    return {"type": "intake", "state": "removed", "key": known, "by": "officer"}


def _moving(state: str, move: str = "m") -> Event:
    places = {
        side: {"store": {"url": url}, "dvc": {"remote": "r"}}
        for side, url in (("old", "a"), ("new", "b"))
    }
    return {"type": "moving", "move": move, "state": state, **(places if state == "begun" else {})}


def _experiment(**changed: Any) -> Event:
    return {
        "type": "experiment",
        "registry": "",
        "id": "1",
        "location": "l",
        "created": 1,
        **changed,
    }


def _retrain(state: str, attempt: int = 1, name: str = "r") -> Event:
    return {"type": "retrain", "state": state, "id": name, "attempt": attempt}


def _checkpoints(place: str, by: str = "", lost: bool = False) -> Event:
    return {"type": "checkpoints", "place": place, "by": by, "lost": lost}


def _deferred(*requests: str) -> Event:
    return {"type": "deferred", "plan_id": "p", "requests": list(requests)}


def _uncertified(*requests: str, **changes: Any) -> Event:
    told = {"plan_id": "p", "requests": list(requests), "texts": 0, "texts_of_others": 0}
    found = {"waiting": [], "left": ["digest of a log"]}
    return {"type": "uncertified", **told, **found, **changes}


def _exported(release: str, **changed: Any) -> Event:
    return {
        "type": "exported",
        "export": "export-1",
        "release": release,
        "place": "/elsewhere",
        "files": {"model.safetensors": DOCUMENT},
        "replaces": [],
        **changed,
    }


RESUMED: Event = {"type": "resumed", "plan_id": "p"}
PLAN = plan_for("q1") | {
    "slices": [[0, 0]],
    "deactivated": [stage_to_json(A)],
    "versions": ["1"],
    "release": release_to_json(_release("p-release", B)),
}
HISTORY: tuple[tuple[str, list[Event]], ...] = (
    ("empty", []),
    ("begun", [{"type": "workspace", "signing_key": key_id(OLD.public_key())}]),
    (
        "data",
        [
            {"type": "settled", "settings": {}},
            {"type": "dataset", "cause": "ingest", "dataset": dataset_to_json(_data("d1"))},
        ],
    ),
    (
        "trained",
        [
            {"type": "backbone", "model": "m", "digest": "b", "tokenizer_digest": "t"},
            {"type": "stage", "stage": stage_to_json(A)},
            {"type": "stage", "stage": stage_to_json(B)},
            _registered("1", "train", _release("r1", A, B)),
        ],
    ),
    ("asked", [_asked("q1"), {**_asked("q2"), "once": KEY}]),
    ("held", [{"type": "hold", "state": "set", "subject": "subject of q2", "id_rule": []}]),
    ("planned", [{"type": "planned", "plan": PLAN}]),
    ("registered", [_registered("2", "erasure", _release("p-release", B))]),
    ("cut over", [_step("cut over")]),
    (
        "data rewritten",
        [{"type": "dataset", "cause": "erasure", "dataset": dataset_to_json(_data("d2"))}],
    ),
    ("rewrite", [_step("rewrite")]),
    ("destroy", [_step("destroy")]),
    ("measure", [_step("measure")]),
    ("scan", [_step("scan")]),
    ("certified", [{"type": "certified", "request": "q1", "certificate": DOCUMENT}]),
    ("done", [_step("certify")]),
    ("wanted", [_retrain("wanted")]),
    ("failed", [_retrain("triggered"), _retrain("failed")]),
    (
        "closed",
        [
            {"type": "hold", "state": "released", "subject": "subject of q2"},
            {"type": "closed", "request": "q2", "kind": "withdrawal", "certificate": DOCUMENT},
        ],
    ),
    ("rotated", [_key(OLD, NEW), _intake(APART)]),
)
NAMES = [name for name, _ in HISTORY]


def _states(first: str, last: str, *but: str) -> set[str]:
    """From one part of the history to another."""
    return set(NAMES[NAMES.index(first) : NAMES.index(last) + 1]) - set(but)


OPEN = _states("planned", "certified")
IDLE = _states("begun", "rotated") - OPEN
DATA, TRAINED, ASKED = (_states(name, "rotated") for name in ("data", "trained", "asked"))
LEGAL: dict[str, tuple[Event, set[str]]] = {
    "a workspace": ({"type": "workspace"}, {"empty"}),
    "a clock that was put right": (
        {"type": "clock", "time": EARLIER, "before": NOW},
        _states("begun", "rotated"),
    ),
    "a clock that was put right from another time": (
        {"type": "clock", "time": EARLIER, "before": DUE},
        set(),
    ),
    "a clock that was not put right": ({"type": "clock", "before": NOW}, set()),
    "a time that ran back": ({**_asked("q9"), "time": EARLIER}, set()),
    "a time of another kind": ({**_asked("q9"), "time": "2026-01-02 00:00:00"}, set()),
    "settings": ({"type": "settled", "settings": {}}, {"begun"}),
    "another cache": ({"type": "cache", "dir": "/c", "shared": True}, DATA),
    "a cache without a name": ({"type": "cache", "dir": "", "shared": True}, set()),
    "a cache that nobody says who shares": ({"type": "cache", "dir": "/c", "shared": None}, set()),
    "an intake host": (_intake(ELSEWHERE), _states("begun", "rotated")),
    "an intake host whose key signs closing documents": (_intake(OLD), set()),
    "an intake host with another's key": (_intake(ELSEWHERE, key="0" * 64), set()),
    "an intake host that seals to nobody": (_intake(ELSEWHERE, seals_to="0b"), set()),
    "an intake host without a name": (_intake(ELSEWHERE, called=""), set()),
    "an intake host twice": (_intake(APART), _states("begun", "closed")),
    "an intake host, removed": (_intake_removed(APART), {"rotated"}),
    "an intake host that never was, removed": (_intake_removed(ELSEWHERE), set()),
    "the key of an intake host, to sign closing documents": (_key(NEW, APART), set()),
    "an experiment": (_experiment(), DATA),
    "an experiment at no place": (_experiment(location=""), set()),
    "an experiment that nobody knows when it was made": (_experiment(created="1"), set()),
    "a training": ({"type": "training", "run": "r"}, IDLE),
    "a training in no run": ({"type": "training", "run": ""}, set()),
    "a move of runs that are no ids": (
        {"type": "migrated", "move": "m", "settings": {}, "versions": {}, "runs": {"r": 1}},
        set(),
    ),
    "a move": ({"type": "migrated", "move": "m", "settings": {}, "versions": {}}, IDLE),
    "a move begun": (_moving("begun"), IDLE),
    "a move begun to nowhere": ({**_moving("begun"), "new": "elsewhere"}, set()),
    "a move that was not begun, undone": (_moving("undone"), set()),
    "a move of a version that is not there": (
        {"type": "migrated", "move": "m", "settings": {}, "versions": {"9": ["r", "m", "d"]}},
        set(),
    ),
    "data ingested": (
        {"type": "dataset", "cause": "ingest", "dataset": dataset_to_json(_data("d3"))},
        IDLE,
    ),
    "data rewritten": (
        {"type": "dataset", "cause": "erasure", "dataset": dataset_to_json(_data("d3"))},
        {"cut over", "data rewritten"},
    ),
    "data rewritten by another rule for ids": (
        {
            "type": "dataset",
            "cause": "erasure",
            "dataset": {**dataset_to_json(_data("d3")), "id_rule": ["case"]},
        },
        set(),
    ),
    "data rewritten by other columns of ids": (
        {
            "type": "dataset",
            "cause": "erasure",
            "dataset": {**dataset_to_json(_data("d3")), "id_columns": ["a", "b"]},
        },
        set(),
    ),
    "data of other columns of ids than open requests": (
        {
            "type": "dataset",
            "cause": "ingest",
            "dataset": {**dataset_to_json(_data("d3")), "id_columns": ["a", "b"]},
        },
        IDLE & (_states("begun", "trained") | _states("closed", "rotated")),
    ),
    "data of another rule for ids than open requests": (
        {
            "type": "dataset",
            "cause": "ingest",
            "dataset": {**dataset_to_json(_data("d3")), "id_rule": ["case"]},
        },
        IDLE & (_states("begun", "trained") | _states("closed", "rotated")),
    ),
    "a request by a hash": (
        {**_asked("q9"), "asked_by": "sha256", "forms": ["f", "g"]},
        _states("begun", "rotated"),
    ),
    "a request by a hash that is none": (
        {**_asked("q9"), "asked_by": "shoe size", "forms": ["f"]},
        set(),
    ),
    "a request by a hash for one record": (
        {**_asked("q9"), "asked_by": "md5", "forms": ["f"], "record": "r"},
        set(),
    ),
    "another spelling": (
        {"type": "spelt", "request": "q1", "ids": ["j"], "near": []},
        {"asked", "held"},
    ),
    "another spelling of what waits": (
        {"type": "spelt", "request": "q2", "ids": ["j"], "near": ["n"]},
        _states("asked", "failed"),
    ),
    "a spelling told before": (
        {"type": "spelt", "request": "q1", "ids": ["j", "i"], "near": []},
        set(),
    ),
    "a spelling told twice": (
        {"type": "spelt", "request": "q1", "ids": ["j", "j"], "near": []},
        set(),
    ),
    "no spelling": ({"type": "spelt", "request": "q1", "ids": [], "near": []}, set()),
    "a place for checkpoints": (_checkpoints("/out"), _states("begun", "rotated")),
    "no place for checkpoints, again": (_checkpoints(""), set()),
    "a place for checkpoints that is lost before there is one": (
        _checkpoints("/out", by="officer", lost=True),
        set(),
    ),
    "a scan of nothing": ({**_step("scan"), "files": 0}, set()),
    "a destroyed stage, trained again": (
        {"type": "stage", "stage": stage_to_json(A)},
        {"begun", "data"} | _states("done", "rotated"),
    ),
    "a destroyed stage with other bytes": (
        {"type": "stage", "stage": stage_to_json(replace(A, digest="other"))},
        {"begun", "data"},
    ),
    "a scan for less than was told": (
        {**_step("scan"), "spellings": 0},
        {"certified"},  # of a request that is closed, and of nobody: it is not looked for again
    ),
    "a backbone": (
        {"type": "backbone", "model": "n", "digest": "b", "tokenizer_digest": "t"},
        IDLE,
    ),
    "a backbone recorded before": (
        {"type": "backbone", "model": "m", "digest": "x", "tokenizer_digest": "t"},
        IDLE - TRAINED,
    ),
    "a stage": ({"type": "stage", "stage": stage_to_json(C)}, IDLE),
    "a stage key bound to other bytes": (
        {"type": "stage", "stage": stage_to_json(replace(B, digest="other"))},
        IDLE - TRAINED,
    ),
    "a release of the training": (_registered("9", "train", _release("r9", B)), (IDLE & TRAINED)),
    "a release of a stage that is gone": (
        _registered("9", "train", _release("r9", A)),
        IDLE & _states("trained", "held"),
    ),
    "a release of a stage with another digest": (
        _registered("9", "train", _release("r9", replace(B, digest="other"))),
        set(),
    ),
    "a release under the number of the one it follows, or of one that is gone": (
        _registered("1", "train", _release("r9", B)),
        IDLE & TRAINED,
    ),
    "a release for no reason": (_registered("9", "whim", _release("r9", B)), set()),
    "the planned release": (
        _registered("3", "erasure", _release("p-release", B)),
        {"planned", "registered"},
    ),
    "another release than the planned one": (
        _registered("3", "erasure", _release("other", B)),
        set(),
    ),
    "the planned release with a stage that is to go": (
        _registered("3", "erasure", _release("p-release", A, B)),
        set(),
    ),
    "a measurement": ({"type": "measured", "release": "r1", "accuracy": 0.5}, TRAINED),
    "a measurement beyond 1": ({"type": "measured", "release": "r1", "accuracy": 1.5}, set()),
    "a measurement by another metric": (_measured(metric="rmse", value=2.5), TRAINED),
    "a measurement with its interval": (
        _measured(0.5, metric="accuracy", value=0.5, low=0.4, high=0.6),
        TRAINED,
    ),
    "a measurement of both ways of answering": (
        _measured(combine="votes", otherwise=_other("merged")),
        TRAINED,
    ),
    "a measurement of one way, twice": (
        _measured(combine="votes", otherwise=_other("votes")),
        set(),
    ),
    "a measurement of a way of answering that nobody knows": (_measured(combine="bets"), set()),
    "a measurement of a way of answering that is no name": (_measured(combine=["votes"]), set()),
    "a measurement beside which stands a sentence": (_measured(otherwise="what she wrote"), set()),
    "a measurement of another way than none": (_measured(otherwise=_other("votes")), set()),
    "a measurement of another way that is no score": (
        _measured(combine="votes", otherwise=_other("merged", value="high")),
        set(),
    ),
    "a measurement of three ways": (
        _measured(combine="votes", otherwise=_other("merged", otherwise=_other("votes"))),
        set(),
    ),
    "a measurement outside its interval": (_measured(value=0.5, low=0.6, high=0.7), set()),
    "a measurement that is no number": (_measured(value="0.5"), set()),
    "a measurement of no number": (_measured(value=None), set()),
    "a measurement whose metric is a sentence": (_measured(metric="what she wrote"), set()),
    "a measurement in no direction": (_measured(higher_is_better=None), set()),
    "an accuracy that is told as another": (_measured(metric="accuracy", value=0.5), set()),
    "an accuracy beside another metric": (_measured(0.5, metric="rmse", value=0.5), set()),
    "an accuracy whose interval is beyond 1": (
        _measured(0.5, metric="accuracy", value=0.5, low=0.4, high=1.5),
        set(),
    ),
    "a measurement of nothing known": (
        {"type": "measured", "release": "r9", "accuracy": None},
        set(),
    ),
    "a request": (_asked("q9"), _states("begun", "rotated")),
    "a request acknowledged before": (_asked("q1"), _states("begun", "trained")),
    "a request that is due on no day": ({**_asked("q9"), "due": "9999-99-99T99:99:99Z"}, set()),
    "a request that is due before it came": ({**_asked("q9"), "due": EARLIER}, set()),
    "a request with an idempotency key": (
        {**_asked("q9"), "once": "2" * 64},
        _states("begun", "rotated"),
    ),
    "a request with the key of another": (
        {**_asked("q9"), "once": KEY},
        _states("begun", "trained"),
    ),
    "a request with a key that is no digest": ({**_asked("q9"), "once": "k"}, set()),
    "a request asked again with another key": (
        {"type": "repeated", "request": "q2", "once": "2" * 64},
        _states("asked", "failed"),
    ),
    "a request asked again with a key that was told": (
        {"type": "repeated", "request": "q2", "once": KEY},
        set(),
    ),
    "a request of an erasure asked again": (
        {"type": "repeated", "request": "q1", "once": "2" * 64},
        _states("asked", "scan"),
    ),
    "an approval": ({"type": "approved", "request": "q1", "by": "x"}, {"asked", "held"}),
    "an approval of nothing known": ({"type": "approved", "request": "q9", "by": "x"}, set()),
    "more time": (_extended("2026-04-01T00:00:00Z"), _states("asked", "scan")),
    "a second more": (_extended("2026-02-01T00:00:01Z"), _states("asked", "scan")),
    "more time than two months": (_extended("2026-04-01T00:00:01Z"), set()),
    "no more time": (_extended(DUE), set()),
    "less time": (_extended("2026-01-31T00:00:00Z"), set()),
    "more time until no day": (_extended("2026-02-30T00:00:00Z"), set()),
    "more time without a reason": ({**_extended("2026-04-01T00:00:00Z"), "reason": ""}, set()),
    "more time that nobody gives": ({**_extended("2026-04-01T00:00:00Z"), "by": ""}, set()),
    "more time for nothing known": (
        {**_extended("2026-04-01T00:00:00Z"), "request": "q9"},
        set(),
    ),
    "more time once it is late": (
        {**_extended("2026-04-01T00:00:00Z"), "time": "2026-02-01T00:00:01Z"},
        set(),
    ),
    "a hold": (
        {"type": "hold", "state": "set", "subject": "subject of q1", "id_rule": []},
        _states("begun", "rotated") - OPEN,
    ),
    "a hold of another subject": (
        {"type": "hold", "state": "set", "subject": "s", "id_rule": []},
        _states("begun", "rotated"),
    ),
    "the end of a hold": (
        {"type": "hold", "state": "released", "subject": "subject of q2"},
        _states("held", "failed"),
    ),
    "a withdrawal": (
        {"type": "closed", "request": "q1", "kind": "withdrawal", "certificate": DOCUMENT},
        {"asked", "held"},
    ),
    "a withdrawal without a document": (
        {"type": "closed", "request": "q2", "kind": "withdrawal", "certificate": ""},
        set(),
    ),
    "a closing of another kind": (
        {"type": "closed", "request": "q2", "kind": "erased", "certificate": DOCUMENT},
        set(),
    ),
    "a withdrawal of what waits beside an erasure": (
        {"type": "closed", "request": "q2", "kind": "rejection", "certificate": DOCUMENT},
        _states("asked", "failed"),
    ),
    "another key": (_key(OLD, THIRD), IDLE - {"rotated"}),
    "another key, vouched for by nobody": (_key(OLD, THIRD, vouched=""), set()),
    "another key, vouched for by a stranger": (
        _key(OLD, THIRD, vouched=_key(NEW, THIRD)["vouched"]),
        set(),
    ),
    "another key instead of one that was lost": (
        _key(OLD, THIRD, vouched="", lost=True),
        _states("begun", "rotated", "rotated"),
    ),
    "another key instead of the newest": (_key(NEW, THIRD), {"rotated"}),
    "a key that was replaced, again": (_key(NEW, OLD), set()),
    "a replay": (
        {
            "type": "replayed",
            "version": "1",
            "live": 1,
            "same_profile": True,
            "same": [],
            "other": [],
        },
        TRAINED,
    ),
    "an export": (_exported("r1"), _states("trained", "held")),
    "an export of what serves after an erasure": (
        _exported("p-release"),
        _states("done", "rotated"),
    ),
    "an export of nobody's release": (_exported("r9"), set()),
    "an export without files": (_exported("r1", files={}), set()),
    "an export of files that are no digests": (_exported("r1", files={"a": "b"}), set()),
    "an export at no place": (_exported("r1", place=""), set()),
    "an export in the place of an unknown one": (_exported("r1", replaces=["export-0"]), set()),
    "a replay of nothing known": (
        {
            "type": "replayed",
            "version": "9",
            "live": 1,
            "same_profile": True,
            "same": [],
            "other": [],
        },
        set(),
    ),
    "a return": (
        {"type": "lifted", "suppression": "suppression of q1", "kind": "subject", "by": "x"},
        _states("done", "rotated"),
    ),
    "a return of another kind": (
        {"type": "lifted", "suppression": "suppression of q1", "kind": "record", "by": "x"},
        set(),
    ),
    "a return of whom nobody erased": (
        {"type": "lifted", "suppression": "suppression of q2", "kind": "subject", "by": "x"},
        set(),
    ),
    "a plan": ({"type": "planned", "plan": plan_for("q1", plan_id="p2")}, {"asked", "held"}),
    "a plan for what is held": (
        {"type": "planned", "plan": plan_for("q2", plan_id="p2")},
        {"asked"},
    ),
    "a plan for nobody": ({"type": "planned", "plan": plan_for(plan_id="p2")}, set()),
    "a plan for one twice": (
        {"type": "planned", "plan": plan_for("q1", "q1", plan_id="p2")},
        set(),
    ),
    "a plan for nothing known": ({"type": "planned", "plan": plan_for("q9", plan_id="p2")}, set()),
    "a plan that deactivates another stage": (
        {
            "type": "planned",
            "plan": plan_for("q1", plan_id="p2") | {"deactivated": [stage_to_json(C)]},
        },
        set(),
    ),
    "a plan that destroys another version": (
        {"type": "planned", "plan": plan_for("q1", plan_id="p2") | {"versions": ["9"]}},
        set(),
    ),
    "a plan that serves what it deactivates": (
        {"type": "planned", "plan": PLAN | {"release": release_to_json(_release("x", A))}},
        set(),
    ),
    "a request of nobody, deferred": (_deferred("q1"), _states("destroy", "scan")),
    "a request of another erasure, deferred": ({**_deferred("q1"), "plan_id": "other"}, set()),
    "a request that is not carried out, deferred": (_deferred("q1", "q2"), set()),
    "a request deferred twice": (_deferred("q1", "q1"), set()),
    "no request, deferred": (_deferred(), set()),
    "a request that is found, without its certificate": (
        _uncertified("q1"),
        _states("measure", "scan"),
    ),
    "a request of another erasure, uncertified": (_uncertified("q1", plan_id="other"), set()),
    "a request that is not carried out, uncertified": (_uncertified("q1", "q2"), set()),
    "a request uncertified twice": (_uncertified("q1", "q1"), set()),
    "no request, uncertified": (_uncertified(), set()),
    "an uncertified request with more texts than were gathered": (
        _uncertified("q1", texts=PLAN["texts"] + 1),
        set(),
    ),
    "a request uncertified for what was found nowhere": (_uncertified("q1", left=[]), set()),
    "a request that waits for another, uncertified": (
        _uncertified("q1", waiting=["q1"], left=[]),
        _states("measure", "scan"),
    ),
    "another request that waits, uncertified": (_uncertified("q1", waiting=["q2"]), set()),
    "an erasure that waits for nothing, resumed": (RESUMED, set()),
    "a certificate": ({"type": "certified", "request": "q1", "certificate": DOCUMENT}, {"scan"}),
    "a certificate for another request": (
        {"type": "certified", "request": "q2", "certificate": DOCUMENT},
        set(),
    ),
    "a certificate without a document": (
        {"type": "certified", "request": "q1", "certificate": "x"},
        set(),
    ),
    "a retrain that is wanted": (
        _retrain("wanted"),
        IDLE - {"wanted", "failed", "closed", "rotated"},
    ),
    "a retrain that is tried again": (_retrain("wanted", 2), {"failed", "closed", "rotated"}),
    "another retrain that is wanted": (
        _retrain("wanted", 1, "s"),
        IDLE - {"wanted", "failed", "closed", "rotated"},
    ),
    "a retrain that is triggered": (_retrain("triggered"), _states("wanted", "rotated")),
    "a retrain that failed": (_retrain("failed"), _states("wanted", "rotated")),
    "another retrain that failed": (_retrain("failed", 1, "s"), set()),
    "a retrain that is finished": (_retrain("finished"), IDLE),
    "another retrain that is finished": (
        _retrain("finished", 1, "s"),
        IDLE - _states("wanted", "rotated"),
    ),
    "a restore that was put right": (
        {
            "type": "healed",
            "stages": 1,
            "objects": 0,
            "quarantined": 0,
            "registry": False,
            "data": False,
        },
        IDLE | OPEN,
    ),
    "the version that serves, retired": (
        {"type": "retired", "versions": ["2"], "stages": []},
        set(),
    ),
    "a stage that serves, retired": (
        {"type": "retired", "versions": [], "stages": ["key b"]},
        IDLE - TRAINED,
    ),
    "nothing, retired": ({"type": "retired", "versions": [], "stages": []}, IDLE | OPEN),
    "a version registered again under its number": (
        {"type": "migrated", "move": "", "settings": {}, "versions": {}},
        (IDLE | OPEN) - {"begun"},
    ),
    **{
        f"step {name}, first": (
            _step(name),
            {"registered"}
            if name == "cut over"
            else {
                {
                    "rewrite": "data rewritten",
                    "destroy": "rewrite",
                    "measure": "destroy",
                    "scan": "measure",
                    "certify": "certified",
                }[name]
            },
        )
        for name in STEPS
        if name != "scan"
    },
    "the scan, first and by a run that goes on": (_step("scan"), {"measure", "scan", "certified"}),
    "a step of another plan": ({**_step("cut over"), "plan_id": "other"}, set()),
    "a destruction that left a stage": ({**_step("destroy"), "stages": []}, set()),
    "a destruction that left a version": ({**_step("destroy"), "versions": []}, set()),
    "a scan that tells nothing": ({"type": "step", "step": "scan", "plan_id": "p"}, set()),
}


def _history(until: str) -> list[Event]:
    parts = itertools.takewhile(lambda part: part[0] != until, HISTORY)
    events = [*itertools.chain(*(events for _, events in parts)), *dict(HISTORY)[until]]
    return [{"time": NOW, **e} for e in events]


STATES = {name: fold(_history(name)) for name in NAMES}


ASIDE = fold([*_history("measure"), {"time": NOW, **_uncertified("q1")}])
"""An erasure that destroyed, and whose one request was found."""


@pytest.mark.parametrize("what", LEGAL)
def test_beside_an_uncertified_erasure_everything_goes_on_but_nothing_of_its_request(
    what: str,
) -> None:
    event, where = LEGAL[what]
    refused = {"a return"}
    more = {
        "an erasure that waits for nothing, resumed",
        "a request of an erasure asked again",  # it is open
        "more time",
        "a second more",
    }
    expected = what in more or ("done" in where and what not in refused)
    assert _takes(ASIDE, {"time": NOW, **event}) == expected


@pytest.mark.parametrize("by_hash", [False, True])
def test_the_ledger_takes_no_certificate_of_whom_another_request_is_found_of(
    by_hash: bool,
) -> None:
    """Whoever signs for the same person, in whatever form they were asked for."""
    subject = "subject of q1"
    other = {**_asked("q7"), "subject": "hash of q1" if by_hash else subject}
    if by_hash:
        other |= {"asked_by": "md5", "forms": ["f"]}
    plan = plan_for("q7", plan_id="p7")
    if by_hash:
        plan |= {"subjects": {"q7": [subject]}, "near": {"q7": []}}
    steps = [{**_step(s), "plan_id": "p7", "stages": [], "versions": []} for s in ("destroy",)]
    told = [other, {"type": "planned", "plan": plan}, {**_step("cut over"), "plan_id": "p7"}]
    told += [{**_step("rewrite"), "plan_id": "p7"}, *steps]
    told += [{**_step(s), "plan_id": "p7"} for s in ("measure", "scan")]
    state = fold([{"time": NOW, **e} for e in told], ASIDE, ASIDE.size)
    certified = {"type": "certified", "time": NOW, "request": "q7", "certificate": DOCUMENT}
    assert not _takes(state, certified)
    waits = {"time": NOW, **_uncertified("q7", plan_id="p7", waiting=["q7"], left=[])}
    after = fold([waits], state, state.size)
    assert after.set_aside == ["q1", "q7"] and after.found_again == ["q1"]
    done = [RESUMED, _step("scan"), {**certified, "request": "q1"}, _step("certify")]
    rest = fold([{"time": NOW, **e} for e in done], after, after.size)
    assert rest.set_aside == ["q7"] and not rest.keeps("q7")


def test_an_uncertified_erasure_goes_on_at_its_search_with_what_it_was_planned_on() -> None:
    later = fold([{"time": NOW, **LEGAL["data ingested"][0]}], ASIDE, ASIDE.size)
    state = fold([{"time": NOW, **RESUMED}], later, later.size)
    assert not state.uncertified and state.planned == ["q1"] and state.set_aside == []
    assert list(state.steps) == list(STEPS[: STEPS.index("scan")])
    assert (state.planned_on, state.planned_after) == ("d1", (1, 1))
    assert _takes(state, {"time": NOW, **_step("scan")})
    assert not _takes(state, {"time": NOW, **RESUMED})
    moving = fold([{"time": NOW, **_moving("begun")}], ASIDE, ASIDE.size)
    assert not _takes(moving, {"time": NOW, **RESUMED})


@pytest.mark.parametrize(
    "asked", ["by a hash of somebody", *(f"a row {where}" for where in PLAN["rows"]["q1"])]
)
def test_a_request_that_may_mean_somebody_is_not_deferred(asked: str) -> None:
    told, by_hash = _history("measure"), asked == "by a hash of somebody"
    for event in told:
        if by_hash and event["type"] == "request" and event["request"] == "q1":
            event |= {"asked_by": "sha256", "forms": ["f"]}
        elif by_hash and event["type"] == "planned":
            event["plan"] = event["plan"] | {"subjects": {"q1": ["s"]}, "near": {"q1": []}}
        elif event["type"] == "planned":
            rows = PLAN["rows"]["q1"] | {asked.removeprefix("a row "): 1}
            event["plan"] = event["plan"] | {"rows": {"q1": rows}, "held_out": True}
    with pytest.raises(NotAllowed, match="no row was found"):
        check(fold(told), from_json({"time": NOW, **_deferred("q1")}))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"slices": []}, "the slices of the rows"),
        ({"held_out": False}, "the held-out rows"),
        ({"deactivated": []}, "saw the slices to be deactivated"),
        ({"release": None}, "a release without them"),
    ],
)
def test_a_plan_reaches_what_it_found(changes: dict[str, Any], expected: str) -> None:
    """Whoever has the key of the workspace can write a plan that erases nothing."""
    told = _history("asked")
    saw = replace(A, slice_digests=("content 0 d1",))
    for event in told:
        if event["type"] == "stage" and event["stage"]["key"] == A.key:
            event["stage"] = stage_to_json(saw)
        elif event["type"] == "release":
            event["release"] = release_to_json(_release("r1", saw, B))
    rows = {"training": 2, "held_out": 1, "earlier": 0, "quarantined": 0}
    plan = PLAN | {"rows": {"q1": rows}, "held_out": True, "deactivated": [stage_to_json(saw)]}
    event = {"type": "planned", "time": NOW, "plan": plan | changes}
    if not expected:
        check(fold(told), from_json(event))
        return
    with pytest.raises(NotAllowed, match=expected):
        check(fold(told), from_json(event))


@pytest.mark.parametrize(
    ("moved", "is_taken"),
    [
        (_checkpoints("/there", "officer"), True),
        (_checkpoints("", "officer"), True),
        (_checkpoints("/there", "officer", lost=True), True),
        (_checkpoints("/there"), False),
        (_checkpoints("/out", "officer"), False),
    ],
)
def test_checkpoints_that_are_kept_at_a_place_are_moved_by_somebody(
    moved: Event, is_taken: bool
) -> None:
    state = fold([*_history("rotated"), {"time": NOW, **_checkpoints("/out")}])
    assert _takes(state, {"time": NOW, **moved}) == is_taken


@pytest.mark.parametrize("what", LEGAL)
def test_each_event_is_taken_where_it_follows_and_refused_everywhere_else(what: str) -> None:
    event, where = LEGAL[what]
    taken = {name for name, state in STATES.items() if _takes(state, {"time": NOW, **event})}
    assert taken == where


def _takes(state: State, event: Event) -> bool:
    try:
        fold([event], state, state.size)
    except LedgerError:
        return False
    return True


def test_a_destruction_that_left_an_object_which_had_rows_is_refused() -> None:
    """What the present data has is needed: nothing that was found is in it any more."""
    told = _history("rewrite")
    for event in told:
        if event["type"] == "planned":
            event["plan"] = event["plan"] | {"objects": ["md5 0 d1", "md5 0 d2"]}
    state, done = fold(told), {"time": NOW, **_step("destroy")}
    assert _takes(state, {**done, "objects": ["md5 0 d1"]})
    assert not _takes(state, {**done, "objects": []})


def test_no_hold_is_set_on_whom_an_erasure_that_has_begun_found_by_a_hash() -> None:
    plan = plan_for("q3", plan_id="p3") | {"subjects": {"q3": ["hers"]}, "near": {"q3": []}}
    begun = fold(
        [
            *_history("asked"),
            *(
                {"time": NOW, **event}
                for event in (
                    {**_asked("q3"), "asked_by": "md5", "forms": ["f"]},
                    {"type": "planned", "plan": plan},
                )
            ),
        ]
    )
    hold = {"type": "hold", "state": "set", "time": NOW, "id_rule": []}
    assert not _takes(begun, {**hold, "subject": "hers"}) and _takes(
        begun, {**hold, "subject": "another's"}
    )


def test_the_last_move_alone_is_ended_once() -> None:
    ended = {"time": NOW, **_moving("ended")}
    moved = {"type": "migrated", "time": NOW, "move": "m", "settings": {}, "versions": {}}
    before = STATES["asked"]
    assert not _takes(before, ended) and not _takes(before, {**ended, "move": ""})
    state = fold([moved], before, before.size)
    assert not _takes(state, {**ended, "move": "n"}) and _takes(state, ended)
    later = fold([{**moved, "move": "n"}], state, state.size)
    assert not _takes(later, ended)
    over = fold([ended], state, state.size)
    assert over.moved == "" and not _takes(over, ended)


def test_while_a_move_is_begun_no_erasure_begins_and_each_end_of_it_leaves_a_place() -> None:
    begun = fold([{"time": NOW, **_moving("begun")}], STATES["asked"], STATES["asked"].size)
    moved = {"type": "migrated", "time": NOW, "move": "m", "settings": {}, "versions": {}}
    for refused in (
        {"type": "planned", "plan": plan_for("q1", plan_id="p2")},
        _moving("begun", "n"),
        _moving("undone", "n"),
        {**moved, "move": "n"},
    ):
        assert not _takes(begun, {"time": NOW, **refused})
    for end, left in ((moved, "a"), ({"time": NOW, **_moving("undone")}, "b")):
        state = fold([end], begun, begun.size)
        assert state.moving is None and state.left_places == [("store", {"url": left})]
        assert _takes(state, {"time": NOW, "type": "planned", "plan": plan_for("q1", plan_id="p2")})
    assert begun.moving is not None and begun.left_places == []


def test_settings_change_with_a_move_and_by_nothing_else() -> None:
    again = {"type": "migrated", "time": NOW, "move": "", "versions": {}}
    for state in (STATES["asked"], STATES["trained"]):
        assert _takes(state, {**again, "settings": {}}) and state.settled == {}
        assert not _takes(state, {**again, "settings": {"model": "another"}})


def test_every_moment_of_a_request_moves_when_the_clock_is_put_right() -> None:
    """One that came, and was given more time, by a clock that ran ahead."""
    ahead = {"time": NOW, **_extended("2026-03-01T00:00:00Z")}
    state = fold([*_history("asked"), ahead])
    back = {"type": "clock", "time": "2025-12-03T00:00:00Z", "before": state.time}
    asked = fold([back], state, state.size).requests["q1"]
    assert asked.clock_corrected and asked.received == "2025-12-03T00:00:00Z"
    assert (asked.extended_from, asked.due) == ("2026-01-02T00:00:00Z", "2026-02-02T00:00:00Z")
    times = {
        f.name for f in fields(asked) if re.fullmatch(r"\d{4}-.*Z", str(getattr(asked, f.name)))
    }
    assert times == {"received", "due", "extended_from"}  # another one has to move as well


def test_an_intake_host_is_removed_once() -> None:
    removed = {"time": NOW, **_intake_removed(APART)}
    state = fold([*_history("rotated"), removed])
    assert not _takes(state, removed)
    known = state.intakes[removed["key"]]
    assert known.until == state.size - 1 and known.since < known.until


@pytest.mark.parametrize(
    ("due", "extended", "now", "expected"),
    [
        ("2028-08-09T00:00:00Z", "", "2027-01-31T00:00:00Z", ("2027-02-28T00:00:00Z", "")),
        (
            "2028-08-09T00:00:00Z",
            "2028-10-09T00:00:00Z",
            "2027-01-31T00:00:00Z",
            ("2027-04-28T00:00:00Z", "2027-02-28T00:00:00Z"),
        ),
        ("2028-08-24T00:00:00Z", "", "2027-01-31T00:00:00Z", ("2027-03-17T00:00:00Z", "")),
        ("2028-07-15T00:00:00Z", "", "2027-01-31T00:00:00Z", ("2027-02-05T00:00:00Z", "")),
    ],
)
def test_what_was_a_month_is_one_again_where_the_clock_is_put_right(
    due: str, extended: str, now: str, expected: tuple[str, str]
) -> None:
    """A request of 2028-07-10, by a clock that ran ahead."""
    came = "2028-07-10T00:00:00Z"
    asked = fold([*_history("asked")]).requests["q1"]
    ahead = replace(asked, received=came, due=extended or due, extended_from=extended and due)
    moved = ahead.received_at(now)
    assert (moved.due, moved.extended_from) == expected


def test_more_time_is_given_once() -> None:
    first = {"time": NOW, **_extended("2026-03-01T00:00:00Z")}
    given = fold([*_history("asked"), first])
    assert given.requests["q1"].due == "2026-03-01T00:00:00Z"
    assert given.requests["q1"].extended_from == DUE and not given.requests["q1"].clock_corrected
    assert not _takes(given, {"time": NOW, **_extended("2026-03-02T00:00:00Z")})


@pytest.mark.parametrize("entry", [None, [], "x", {"type": []}, {"type": {}}, {"type": None}, {}])
def test_what_is_no_entry_at_all_is_refused_as_one(entry: Any) -> None:
    with pytest.raises(LedgerError, match="known event at ledger entry 0"):
        fold([entry])


@pytest.mark.parametrize("module", [rules, ledger], ids=["rules", "ledger"])
def test_the_table_that_people_read_has_every_kind(module: Any) -> None:
    rows = [line.split("|")[1] for line in module.__doc__.splitlines() if line.startswith("| ")]
    assert {name.strip() for row in rows[1:] for name in row.split(",")} == KINDS


def test_every_kind_of_event_is_in_the_table() -> None:
    assert {event["type"] for event, _ in LEGAL.values()} == KINDS


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_event_that_lacks_any_part_is_refused_and_nothing_else_breaks(kind: str) -> None:
    """Never with another error than ours: a hostile row must not stop a reader with a traceback."""
    optional = {
        "by",
        "basis",
        "reason",
        "key_check",
        "signing_key",
        "registry",
        "data",
        "quarantined",
        "same",
        "other",
        "live",
        "same_profile",
        "move",
        "digest",
        "tokenizer_digest",
        "model",
        "offline",
        "score",
        "activations",
    }
    optional |= (
        {"attempt"} if kind == "retrain" else set()
    )  # what is finished was tried however often
    samples = [(e, STATES[sorted(w)[0]]) for e, w in LEGAL.values() if e["type"] == kind and w]
    samples += [(RESUMED, ASIDE)] if kind == "resumed" else []
    assert samples
    for event, state in samples:
        for part in event.keys() - {"type"} - optional:
            without = {k: v for k, v in {"time": NOW, **event}.items() if k != part}
            assert not _takes(state, without), part
        for junk in (None, [], {}, -1, "x", [None]):
            for part in event.keys() - {"type"}:
                _takes(state, {"time": NOW, **event, part: junk})


def test_a_clock_set_back_is_told_before_what_comes_then_and_begins_the_deadlines_again() -> None:
    """A clock 700 days ahead acknowledged q1; it was put right."""
    ahead, ahead_due, back = "2028-01-01T00:00:00Z", "2028-01-31T00:00:00Z", "2026-01-31T00:00:00Z"
    before = fold(_history("trained"))
    late = corrected([{**_asked("q1"), "time": ahead, "due": ahead_due}], before.time)
    assert [e["type"] for e in late] == ["request"]
    state = fold(late, before, before.size)
    came = corrected([{**_asked("q2"), "time": NOW, "due": DUE}], state.time)
    assert [e["type"] for e in came] == ["clock", "request"] and came[0]["before"] == ahead
    with pytest.raises(LedgerError, match="run back"):
        fold(came[1:], state, state.size)
    state = fold(came, state, state.size)
    first, second = state.requests["q1"], state.requests["q2"]
    assert (first.received, first.due, first.clock_corrected) == (NOW, DUE, True)
    assert first.claimed == (ahead, ahead_due) and not second.clock_corrected
    assert state.time == NOW and state.corrected == 1 and back < first.due


def test_small_steps_back_do_not_add_up_to_an_hour() -> None:
    before = fold(_history("asked"))
    creeping = [
        {**_asked(f"c{i}"), "time": f"2026-01-01T{23 - i // 60:02d}:{59 - i % 60:02d}:00Z"}
        for i in range(60)
    ]
    told = corrected(creeping, before.time)
    assert sum(e["type"] == "clock" for e in told) >= 10
    with pytest.raises(LedgerError, match="run back"):
        fold(creeping, before, before.size)
