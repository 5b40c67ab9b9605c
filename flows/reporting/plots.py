"""The figures of the report. Colours that colour-blind readers can tell apart (Okabe and Ito);
shapes differ too."""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.dates
import matplotlib.patches
from matplotlib.figure import Figure

from flows.reporting.blocks import Picture
from s3t_core.domain import Score, as_accuracy
from s3t_core.erasure.report_document import BudgetPoint, Report, ShardPicture, Use, VersionEntry
from s3t_core.times import parse_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GOOD, _WARM, _BAD, _QUIET, _INK = "#009E73", "#E69F00", "#D55E00", "#DDDDDD", "#222222"
_USES: dict[Use, tuple[str, str]] = {
    "answers": (_GOOD, "in use"),
    "stands by": (_WARM, "only in a reserve model"),
    "silenced": (_BAD, "not used until retrained"),
    "empty": (_QUIET, "no records"),
}
_MOST_SHARDS = 40


def budget_burn_down(
    points: Sequence[BudgetPoint],
    policy: str,
    until: str,
) -> Picture:
    """Live depth (mean, worst shard) over time, versions as marks."""
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    axes = figure.subplots()
    times: list[Any] = [parse_time(p.time) for p in points] + [parse_time(until)]
    mean = [p.mean_live_depth for p in points]
    worst = [min(p.live_depths, default=0) for p in points]
    axes.step(
        times,
        [*mean, mean[-1]],
        where="post",
        color=_INK,
        label="mean of all shards",
    )
    axes.step(
        times, [*worst, worst[-1]], where="post", color=_BAD, linestyle="--", label="worst shard"
    )
    spent = [(parse_time(p.time), min(p.live_depths, default=0)) for p in points if p.exhausted]
    if spent:
        moments: list[Any] = [t for t, _ in spent]
        axes.plot(
            moments, [d for _, d in spent], "x", color=_BAD, markersize=9, label="budget spent"
        )
    axes.set_ylim(bottom=0)
    axes.set_ylabel("live depth")
    axes.legend(
        loc="lower left",
        fontsize=8,
        frameon=False,
    )
    _dates(axes)
    return _picture(
        figure,
        f"Deletion-rate budget ({policy}): from {mean[0]:g} blocks live on average to {mean[-1]:g} "
        f"in {len(points)} version(s); the worst shard has {worst[-1]}.",
    )


def score_over_time(versions: Sequence[VersionEntry]) -> Picture | None:
    """Held-out score of each version when it began to serve, of those that the last metric
    measured, with its 95% interval; None when none was measured."""
    measured = [v for v in versions if _score_of(v)]
    if not measured:
        return None
    last = _known_score(measured[-1])
    measured = [v for v in measured if _known_score(v).metric == last.metric]
    scores = [_known_score(v) for v in measured]
    scale = 100 if last.accuracy is not None else 1
    figure = Figure(figsize=(7.2, 2.2), layout="constrained")
    axes = figure.subplots()
    times: list[Any] = [parse_time(v.served_from) for v in measured]
    values = [scale * score.value for score in scores]
    axes.errorbar(
        times,
        values,
        yerr=[
            [scale * _reach(score, score.low) for score in scores],
            [scale * _reach(score, score.high) for score in scores],
        ],
        color=_INK,
        linewidth=1,
        elinewidth=0.6,
    )
    for causes, mark, which in (
        (("erasure",), "o", "after an erasure"),
        (("train", "retrain", "repair"), "s", "after a training"),
    ):
        some = [i for i, v in enumerate(measured) if v.cause in causes]
        if some:
            axes.plot(
                [times[i] for i in some],
                [values[i] for i in some],
                mark,
                label=which,
                color=_BAD if mark == "o" else _GOOD,
            )
    axes.set_ylabel("correct answers, %" if scale == 100 else last.name)
    axes.legend(loc="best", fontsize=8, frameon=False)
    axes.margins(x=0.05, y=0.25)
    _dates(axes)
    worst = min(values) if last.higher_is_better else max(values)
    parts = [
        f"Held-out {last.name} of {len(measured)} version(s): first {_short(scores[0])}",
        f"last {_short(last)}",
        "lowest" if last.higher_is_better else "highest",
    ]
    bars = " The bars are 95% intervals." if last.low is not None else ""
    return _picture(
        figure,
        f"{', '.join(parts)} {_short(replace(last, value=worst / scale))}.{bars}",
    )


def _score_of(version: VersionEntry) -> Score | None:
    return version.score.score() if version.score else as_accuracy(version.accuracy)


def _known_score(version: VersionEntry) -> Score:
    """That of a version which was measured."""
    score = _score_of(version)
    if score is None:
        raise ValueError("expected a version that was measured, got another")
    return score


def _reach(score: Score, bound: float | None) -> float:
    return 0.0 if bound is None else abs(score.value - bound)


def _short(score: Score) -> str:
    return replace(score, low=None, high=None).in_words()


def live_picture(shards: Sequence[ShardPicture]) -> Picture:
    """Shard by slice: what the serving version makes of it."""
    shown = list(shards)[:_MOST_SHARDS]
    columns = max(len(s.slices) for s in shown)
    figure = Figure(
        figsize=(7.2, 0.9 + 0.34 * len(shown)),
        layout="constrained",
    )
    axes = figure.subplots()
    for y, shard in enumerate(shown):
        for x, cell in enumerate(shard.slices):
            axes.add_patch(
                mpl.patches.Rectangle(
                    (x, y),
                    1,
                    1,
                    facecolor=_USES[cell.use][0],
                    edgecolor="white",
                )
            )
            axes.text(
                x + 0.5,
                y + 0.5,
                str(cell.rows),
                ha="center",
                va="center",
                fontsize=8,
                color=_INK if cell.use in ("empty", "stands by") else "white",
            )
    axes.set_xlim(0, columns)
    axes.set_ylim(len(shown), 0)
    axes.set_xticks(
        [x + 0.5 for x in range(columns)], [f"slice {x}" for x in range(columns)], fontsize=8
    )
    axes.set_yticks(
        [y + 0.5 for y in range(len(shown))], [f"shard {s.shard}" for s in shown], fontsize=8
    )
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    for side in axes.spines.values():
        side.set_visible(False)
    patches = [mpl.patches.Patch(color=colour, label=label) for colour, label in _USES.values()]
    figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=4,
        fontsize=8,
        frameon=False,
    )
    cells = [c.use for s in shards for c in s.slices]
    return _picture(
        figure,
        f"{cells.count('answers')} of {len(cells)} slices are in use, {cells.count('stands by')} "
        f"only in a reserve model, {cells.count('silenced')} not used until retrained. Numbers are "
        "records."
        + (
            f" The first {_MOST_SHARDS} of {len(shards)} shards are shown."
            if len(shards) > _MOST_SHARDS
            else ""
        ),
    )


def pictures(report: Report) -> dict[str, Picture | None]:
    """All figures; None where there is nothing to show. Drawn by matplotlib's own defaults: it
    takes others from the directory that one stands in, which may be anybody's."""
    mpl.rcdefaults()
    return {
        "budget": budget_burn_down(
            report.budget,
            report.budget_policy,
            report.period.until,
        )
        if report.budget
        else None,
        "score": score_over_time(report.versions),
        "live": live_picture(report.picture) if report.picture else None,
    }


def _dates(axes: "Axes") -> None:
    locator = mpl.dates.AutoDateLocator(maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mpl.dates.ConciseDateFormatter(locator))
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _picture(figure: Figure, caption: str) -> Picture:
    vector, raster = io.StringIO(), io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "s3t"}):
        figure.savefig(
            vector,
            format="svg",
            metadata={"Date": None, "Creator": None},
        )
    figure.savefig(raster, format="png", dpi=170)
    drawn = vector.getvalue()
    width, height = figure.get_size_inches()
    return Picture(
        drawn[drawn.index("<svg") :], raster.getvalue(), caption, (float(width), float(height))
    )
