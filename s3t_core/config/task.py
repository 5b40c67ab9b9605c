"""The table [task] of `s3t.toml`: what is learnt of a row."""

import math
from typing import Literal

from pydantic import Field, field_validator, model_validator

from s3t_core.config.sections import Section

TaskKind = Literal["classification", "multilabel", "regression", "generation"]
METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1"),
    "multilabel": ("micro_f1", "macro_f1"),
    "regression": ("rmse", "pearson", "spearman"),
    "generation": ("perplexity", "token_accuracy"),
}
"""By which each task can be measured; the first is what it is measured by unless told otherwise."""


class TaskConfig(Section):
    """What is learnt of a row, and by what a version is measured."""

    kind: TaskKind = Field(
        "classification",
        description='"classification" (one label of several), "multilabel" (any number of labels), '
        '"regression" (a number) or "generation" (a language model learns what is said)',
    )
    metric: str = Field(
        "",
        description='by what versions are measured: "accuracy" or "macro_f1"; multilabel: '
        '"micro_f1" or "macro_f1"; regression: "rmse", "pearson" or "spearman"; generation: '
        '"perplexity" or "token_accuracy"; "" = the first',
    )
    separator: str = Field(
        "",
        description='multilabel: what stands between the labels of a row, as ";"; "" = they are a '
        "JSON list",
    )
    range: tuple[float, ...] = Field(
        (),
        description="regression: the smallest and the largest number there can be, as [0.0, 5.0]; "
        "a row outside is quarantined",
    )

    @field_validator("range", mode="before")
    @classmethod
    def _range(cls, value: object) -> tuple[float, ...]:
        if not isinstance(value, list | tuple) or not all(type(v) in (int, float) for v in value):
            raise ValueError(_TWO_NUMBERS)
        numbers = tuple(float(v) for v in value)
        if numbers and (len(numbers) != 2 or not numbers[0] < numbers[1]):
            raise ValueError(f"{_TWO_NUMBERS}, got {list(numbers)!r}")
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"{_TWO_NUMBERS}, both finite")
        return numbers

    @field_validator("separator")
    @classmethod
    def _separator(cls, value: str) -> str:
        if value and (not value.strip() or value in '"[]' or "\0" in value):
            raise ValueError(
                'expected what stands between two labels, as ";" or ",", no blank, quote or '
                f"bracket, got {value!r}"
            )
        return value

    @model_validator(mode="after")
    def _fits(self) -> "TaskConfig":
        if self.metric and self.metric not in METRICS[self.kind]:
            raise ValueError(
                f"metric: expected {' or '.join(map(repr, METRICS[self.kind]))} for a "
                f'{self.kind}, or "", got {self.metric!r}'
            )
        if self.separator and self.kind != "multilabel":
            raise ValueError(f'expected no separator with kind = "{self.kind}", got one')
        if bool(self.range) != (self.kind == "regression"):
            raise ValueError(
                f'expected a range with kind = "regression", and only there, got '
                f'{list(self.range)!r} with "{self.kind}"; write the smallest and the largest '
                "number that there can be, not those of the data: they would be a trace of it"
            )
        return self

    @property
    def has_labels(self) -> bool:
        """Whether rows ask for declared labels."""
        return self.kind in ("classification", "multilabel")

    @property
    def measured_by(self) -> str:
        """The metric that decides."""
        return self.metric or METRICS[self.kind][0]


_TWO_NUMBERS = "expected the smallest and the largest number that there can be, as [0.0, 5.0]"
