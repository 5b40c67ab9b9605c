"""Validation with Great Expectations: expectations about one row admit or refuse it; table-level
ones only warn.

A row must never be refused because of another subject's row: that would be a trace of it
(hazards.md, 8). Results are asked for without values, so nothing of a row is written by Great
Expectations.
"""

import logging
import os
import warnings
from dataclasses import dataclass
from typing import Any

import pandas as pd

from flows.adapters.sources.cells import MALFORMED, ROW
from flows.adapters.sources.targets import PROBLEMS, reading_of
from s3t_core import images
from s3t_core.config import DataConfig
from s3t_core.config.task import TaskConfig
from s3t_core.domain import EVERYONE_ELSE, Tiers

_TEXT_BYTES, _SUBJECT_BYTES, _RECORD_BYTES = "\0text_bytes", "\0subject_bytes", "\0record_bytes"
_LABEL_PROBLEM, _IMAGE_PROBLEM = "\0label_problem", "\0image_problem"
_NO_VALUES: dict[str, Any] = {
    "result_format": "COMPLETE",
    "unexpected_index_column_names": [ROW],
    "exclude_unexpected_values": True,
    "partial_unexpected_count": 0,
}


@dataclass(frozen=True)
class Verdicts:
    """Reasons to refuse a row, by its source row number; warnings by what they are about, with
    counts."""

    refused: dict[int, list[str]]
    warned: dict[str, int]


class RowValidator:
    """The expectation suite that a config asks for."""

    def __init__(
        self,
        config: DataConfig,
        labels: tuple[str, ...],
        tiers: Tiers | None = None,
        task: TaskConfig | None = None,
    ) -> None:
        """`task`: what is asked of the labels, as of those of a classification without one."""
        os.environ["GX_ANALYTICS_ENABLED"] = "false"
        import great_expectations as gx

        for noisy in ("great_expectations", "great_expectations.data_context.types.base"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        from great_expectations.data_context.types.base import ProgressBarsConfig

        self._config = config
        self._reading = reading_of(task or TaskConfig(), labels)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        asset = context.data_sources.add_pandas("source").add_dataframe_asset("rows")
        self._batch = asset.add_batch_definition_whole_dataframe("chunk")
        self._suite = gx.ExpectationSuite("rows")
        self._reasons: list[str] = []
        for reason, expectation in _row_expectations(gx.expectations, config, tiers):
            self._reasons.append(reason)
            self._suite.add_expectation(expectation)
        self._table = gx.ExpectationSuite("table")
        self._table.add_expectation(
            gx.expectations.ExpectColumnValuesToBeUnique(column=config.text)
        )

    def labels_in(self, value: str) -> list[str]:
        """The labels that stand in a cell, declared or not."""
        return self._reading.labels_in(value)

    def check(self, chunk: pd.DataFrame) -> Verdicts:
        """Verdicts on the rows of one chunk, as `sources` makes them."""
        config = self._config
        frame = chunk.assign(
            **{
                _TEXT_BYTES: [_bytes(v) for v in chunk[config.text]],
                _SUBJECT_BYTES: [_bytes(v) for v in chunk[config.subject]],
                _RECORD_BYTES: [_bytes(v) for v in chunk[config.record]] if config.record else 1,
                _LABEL_PROBLEM: [self._problem(v) for v in chunk[config.label]],
                _IMAGE_PROBLEM: [self._image_problem(v) for v in chunk[config.text]],
            }
        )
        malformed = {int(r): [m] for r, m in zip(frame[ROW], frame[MALFORMED], strict=True) if m}
        refused: dict[int, list[str]] = dict(malformed)
        for reason, failed in self._failures(frame, self._suite):
            for row in failed:
                if row not in malformed:  # it could not be read: nothing more can be said of it
                    refused.setdefault(row, []).append(reason)
        repeated = [f for _, f in self._failures(frame, self._table)]
        return Verdicts(
            refused, {"texts that stand in more than one row": len(repeated[0]) if repeated else 0}
        )

    def _problem(self, value: object) -> str:
        """Why the label is refused; "" where it is not, or is missing."""
        return self._reading.problem(value) if isinstance(value, str) else ""

    def _image_problem(self, value: object) -> str:
        """The same of an image."""
        if self._config.content != "image" or not isinstance(value, str) or not value.strip():
            return ""
        return images.image_problem(value, self._config.max_pixels)

    def _failures(self, frame: pd.DataFrame, suite: object) -> list[tuple[str, list[int]]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            batch = self._batch.get_batch(batch_parameters={"dataframe": frame})
            result = batch.validate(suite, result_format=_NO_VALUES)
        found = []
        for outcome in result.results:
            kwargs = outcome.expectation_config
            rows = [
                int(i)
                for group in outcome.result.get("unexpected_index_list") or []
                for i in (group[ROW] if isinstance(group[ROW], list) else [group[ROW]])
            ]
            if outcome.exception_info.get("raised_exception"):
                raise RuntimeError(
                    "a Great Expectations check could not be run"
                )  # fail closed: admits nothing
            found.append((kwargs.meta.get("reason", "") if kwargs.meta else "", rows))
        return found


def _bytes(value: object) -> int:
    return len(value.encode(errors="surrogatepass")) if isinstance(value, str) else 0


def _row_expectations(gxe: Any, config: DataConfig, tiers: Tiers | None) -> list[tuple[str, Any]]:
    def about(reason: str, kind: Any, **kwargs: Any) -> tuple[str, Any]:
        return reason, kind(meta={"reason": reason}, **kwargs)

    required = [("subject", config.subject), ("label", config.label), ("text", config.text)]
    if config.record:
        required.append(("record", config.record))
    if config.split_by not in (config.subject, config.record):
        required.append(("held_out_by", config.split_by))
    if tiers:
        required.append(("tier", tiers.column))
    checks = [
        about(f"the {what} is missing", gxe.ExpectColumnValuesToNotBeNull, column=column)
        for what, column in required
    ]
    checks += [
        about(
            "the text is empty", gxe.ExpectColumnValuesToMatchRegex, column=config.text, regex=r"\S"
        ),
        about(
            f"the text is longer than {config.max_text_bytes} bytes",
            gxe.ExpectColumnValuesToBeBetween,
            column=_TEXT_BYTES,
            max_value=config.max_text_bytes,
        ),
        about(
            f"the subject id is longer than {config.max_id_bytes} bytes",
            gxe.ExpectColumnValuesToBeBetween,
            column=_SUBJECT_BYTES,
            max_value=config.max_id_bytes,
        ),
        about(
            f"the record id is longer than {config.max_id_bytes} bytes",
            gxe.ExpectColumnValuesToBeBetween,
            column=_RECORD_BYTES,
            max_value=config.max_id_bytes,
        ),
        *(
            about(
                problem,
                gxe.ExpectColumnValuesToNotBeInSet,
                column=_LABEL_PROBLEM,
                value_set=[problem],
            )
            for problem in PROBLEMS
        ),
        *(
            about(
                problem,
                gxe.ExpectColumnValuesToNotBeInSet,
                column=_IMAGE_PROBLEM,
                value_set=[problem],
            )
            for problem in (images.PROBLEMS if config.content == "image" else ())
        ),
    ]
    declared = [v for values in tiers.values for v in values] if tiers else []
    if tiers and EVERYONE_ELSE not in declared:
        checks.append(
            about(
                "the tier is not one of the declared ones",
                gxe.ExpectColumnValuesToBeInSet,
                column=tiers.column,
                value_set=declared,
            )
        )
    return checks
