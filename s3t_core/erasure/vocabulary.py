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
MoveState = Literal["begun", "undone", "ended"]
IntakeState = Literal["added", "removed"]
Scope = Literal["subject", "record"]
ExportStanding = Literal["serves", "superseded", "stale", "replaced", "destroyed"]
"""What has become of a checkpoint that was exported: it is of the version that serves, or of an
earlier one; of one with a stage that saw who was erased, and out of reach; another one took its
place; an erasure destroyed it where it was put."""
STEPS = ("cut over", "rewrite", "destroy", "measure", "scan", "certify")
"""The steps of an erasure that the ledger records, in their order."""
