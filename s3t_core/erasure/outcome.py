"""What an erasure came to for one request: nobody is told "erased" of whom nothing was there.

| outcome | what was found |
|---|---|
| erased | rows that a model was trained on, or may have been |
| held out only | rows that were only ever measured with |
| not trained on yet | rows that no stage saw |
| nothing found | no row, in no data version and not in quarantine |
"""

from collections.abc import Collection
from typing import Literal

from s3t_core.domain import RowCounts, SliceId

ErasureOutcome = Literal["erased", "held out only", "not trained on yet", "nothing found"]


def outcome_of(
    rows: RowCounts,
    slices: Collection[SliceId],
    deactivated: bool,
    silenced: Collection[SliceId],
    trained: bool,
) -> ErasureOutcome:
    """The outcome for a request with these rows. `slices`: where the erasure found rows;
    `deactivated`: whether it deactivated a stage; `silenced`: slices that stages saw which an
    earlier one deactivated; `trained`: whether there ever was a stage that could have seen an
    earlier data version. Where several requests are carried out at once, nobody asks which of them
    a stage saw: it counts for all."""
    if not rows.known:
        return "nothing found"
    if rows.training and not (deactivated or set(slices) & set(silenced)):
        return "not trained on yet"
    if rows.training or (rows.earlier and trained):
        return "erased"
    return "held out only" if rows.held_out else "not trained on yet"


def render_outcome(outcome: str, rows: int) -> str:
    """The outcome as it is shown, with its rows where there were any."""
    return f"{outcome} ({rows} row{'s' if rows != 1 else ''})" if rows else outcome
