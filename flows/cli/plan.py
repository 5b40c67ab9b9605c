"""`s3t plan`: what a layout would take and how long it would last."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.base import JsonOption, WorkspaceOption, console, open_if_there, show, working

if TYPE_CHECKING:
    from flows.workspace.workspace import Workspace

_Shards = Annotated[str, typer.Option("--shards", metavar="M[,M...]", help="m, one or several.")]
_Slices = Annotated[str, typer.Option("--slices", metavar="L[,L...]", help="L, one or several.")]
_Budget = Annotated[str, typer.Option("--budget", metavar="B[,B...]", help="B, one or several.")]
_Sequences = Annotated[str, typer.Option("--sequences", help="cyclic, bms or optimised.")]
_Prior = Annotated[
    str,
    typer.Option(
        "--prior",
        metavar="P,P,...|uniform",
        help="Chance of the next request per slice of a shard.",
    ),
]
_Subjects = Annotated[
    int,
    typer.Option(
        "--subjects", min=0, help="How many there are. 0: requests name slices, without end."
    ),
]
_Once = Annotated[bool, typer.Option("--once", help="Each subject asks at most once.")]
_Zipf = Annotated[float, typer.Option("--zipf", help="Exponent: few subjects ask most.")]
_Burst = Annotated[
    int, typer.Option("--burst", min=1, help="Whoever asks, asks so often in a row.")
]
_Skew = Annotated[
    str,
    typer.Option(
        "--skew",
        metavar="SUBJECTS:REQUESTS",
        help="A likely group: 0.2:0.8 = 20% of subjects make 80% of requests.",
    ),
]
_Tiers = Annotated[
    str,
    typer.Option("--tiers", metavar="N,N", help="Slices of the likely group and of the others."),
]
_Records = Annotated[
    int, typer.Option("--records", min=0, help="Records, for collateral and repair.")
]
_Policy = Annotated[
    str, typer.Option("--policy", help="first_shard_dead, all_shards_dead or mean_depth.")
]
_Floor = Annotated[float, typer.Option("--floor", help="Mean live depth that counts as spent.")]
_RequestsPerDay = Annotated[
    float, typer.Option("--requests-per-day", help="Turns requests into dates.")
]
_Target = Annotated[
    str,
    typer.Option(
        "--target", metavar="TIME", help='Search the cheapest layout that lasts, as "90 days".'
    ),
]
_RowsPerSecond = Annotated[
    float,
    typer.Option("--rows-per-second", help="Training speed: shows what repair keeps up with."),
]
_SuggestPrior = Annotated[
    bool, typer.Option("--suggest-prior", help="A prior for s3t.toml; nothing is changed.")
]
_Plot = Annotated[
    str,
    typer.Option("--plot", metavar="FILE", help="Depth against requests: .png, .svg or .html."),
]
_Runs = Annotated[int, typer.Option("--runs", min=10, max=1_000_000)]
_Seed = Annotated[int, typer.Option("--seed", min=0)]


def plan(
    shards: _Shards = "",
    slices: _Slices = "",
    budget: _Budget = "",
    sequences: _Sequences = "",
    prior: _Prior = "",
    subjects: _Subjects = 0,
    once: _Once = False,
    zipf: _Zipf = 0.0,
    burst: _Burst = 1,
    skew: _Skew = "",
    tiers: _Tiers = "",
    records: _Records = 0,
    policy: _Policy = "",
    floor: _Floor = 0.0,
    requests_per_day: _RequestsPerDay = 0,
    target: _Target = "",
    rows_per_second: _RowsPerSecond = 0.0,
    suggest_prior: _SuggestPrior = False,
    plot: _Plot = "",
    runs: _Runs = 4000,
    seed: _Seed = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a layout would take and how long it would last: before any training, in or outside a
    workspace."""
    from flows.use_cases import planning

    opened = open_if_there(workspace)
    from s3t_core.config import Config

    config = opened.config if opened else Config()
    if suggest_prior:
        _suggest_prior(opened, skew, tiers, as_json)
        return
    if plot:
        planning.check_plot(Path(plot))
    question = planning.question_of(
        config,
        _rows_there(opened),
        {
            "shards": shards,
            "slices": slices,
            "budget": budget,
            "sequences": sequences,
            "prior": prior,
            "subjects": subjects,
            "once": once,
            "zipf": zipf,
            "burst": burst,
            "skew": skew,
            "tiers": tiers,
            "records": records,
            "policy": policy,
            "floor": floor,
            "requests_per_day": requests_per_day,
            "target": target,
            "rows_per_second": rows_per_second,
            "runs": runs,
            "seed": seed,
        },
    )
    with working("Simulating request streams"):
        document = planning.plan(question, config)
    if plot:
        planning.write_plot(Path(plot), document["plans"])
    show(as_json, document, lambda d: planning.render_plan(d, console().width))


def _rows_there(opened: "Workspace | None") -> int:
    """How many rows the workspace's data has; 0 where there is no workspace or no data."""
    if opened is None or not (opened.root / "data.dvc").exists():
        return 0
    dataset = opened.ledger.state().dataset
    return dataset.rows() if dataset else 0


def _suggest_prior(opened: "Workspace | None", skew: str, tiers: str, as_json: bool) -> None:
    """From a skew and tiers, else from the slices that past erasures silenced in the workspace."""
    from flows.use_cases import planning

    found, origin = planning.suggested(opened, skew, tiers)
    show(
        as_json,
        {"suggested_prior": list(found), "from": origin},
        lambda d: [
            f"prior = [{', '.join(f'{p:g}' for p in d['suggested_prior'])}]   # {d['from']}",
            "Nothing was changed. Writing it under [system] in s3t.toml is your choice, outside "
            'the guarantee (docs/threat-model.md), and needs sequences = "bms" or "optimised".',
        ],
    )
