"""Closed sets that the ledger's events, its rules and the report share."""

from typing import Any, Literal

Event = dict[str, Any]
"""An entry as JSON values."""

ReleaseCause = Literal["train", "retrain", "repair", "erasure", "restored"]
"""Why a version began to serve."""
ClosingKind = Literal["withdrawal", "rejection"]
"""How a request ends without an erasure."""
RetrainState = Literal["wanted", "triggered", "failed", "finished"]
HoldState = Literal["set", "released"]
MoveState = Literal["begun", "undone"]
Scope = Literal["subject", "record"]
STEPS = ("cut over", "rewrite", "destroy", "measure", "scan", "certify")
"""The steps of an erasure that the ledger records, in their order."""
