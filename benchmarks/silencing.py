"""Row d: held-out accuracy while slices are silenced, against SISA at the same points and one plain
fine-tune.

    python -m benchmarks.silencing --dir DIR [--rows N]

Every model that can come to answer is asked once: every depth of every replica, every checkpoint of
SISA. A point is the mean over draws of silenced slices, the same ones for both. "Without
retraining": a shard answers with its last clean checkpoint, or leaves.
"""

import random
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.bed import Bed, bed_of, parser
from benchmarks.plain import plain_recipe, sisa_file, whole_recipe
from benchmarks.report import Line, at_least, tell
from benchmarks.training import run_plain
from s3t_core.canonical import sha256_hex
from s3t_core.domain import Release, Replica, SliceId, StageRecord
from s3t_core.errors import GuaranteeError
from s3t_core.learning.backbone import find_backbone
from s3t_core.learning.ensemble import Ensemble

SHARES = (0.1, 0.25, 0.5)
DRAWS = 40


def main() -> None:
    """Measure; what is not trained yet is trained."""
    bed = bed_of(parser("benchmarks.silencing", __doc__).parse_args())
    if bed.missing():
        bed.train(bed.missing())
    for what, file in (
        ("joint", "joint.safetensors"),
        ("sisa", sisa_file(bed.topology.shards - 1, bed.topology.slices - 1)),
    ):
        if not (bed.folder / "plain" / file).exists():
            run_plain(bed, what)
    tell(lines(bed))


def lines(bed: Bed) -> list[Line]:
    """The points."""
    points = Points(bed)
    size = f"m={bed.topology.shards} L={bed.topology.slices} B={bed.topology.budget}"
    joint, full = points.joint(), points.ours(frozenset())
    if full is None:
        raise SystemExit("expected a live shard with nothing silenced")
    allowed = 1.0 if bed.topology.shards == 1 else 3.0
    told = [
        Line(
            "d",
            "one plain LoRA on all rows",
            joint,
            "%",
            f"{bed.dataset.rows()} rows, {len(bed.held_out)} held out",
        ),
        at_least(
            "d", f"S3T at full depth minus plain LoRA, {size}", full - joint, -allowed, "points"
        ),
        Line("d", f"S3T at full depth, {size}", full, "%"),
        Line(
            "d",
            "S3T at full depth, all live replicas vote",
            points.ours(frozenset(), everyone=True),
            "%",
        ),
        Line("d", "SISA at full depth", points.sisa(frozenset()), "%"),
    ]
    slices = list(bed.topology.slice_ids())
    for share in SHARES:
        count = max(1, round(share * len(slices)))
        chance = random.Random(f"{share}")
        draws = [frozenset(chance.sample(slices, count)) for _ in range(DRAWS)]
        after = f"after {share:.0%} of slices silenced"
        told += [
            Line("d", f"S3T {after}", *_mean([points.ours(d) for d in draws], count)),
            Line(
                "d",
                f"S3T {after}, all live replicas vote",
                *_mean([points.ours(d, everyone=True) for d in draws], count),
            ),
            Line("d", f"SISA {after}", *_mean([points.sisa(d) for d in draws], count)),
        ]
    return told


def _mean(found: list[float | None], count: int) -> tuple[float | None, str, str]:
    alive = [f for f in found if f is not None]
    dead = f", {len(found) - len(alive)} with every shard dead" if len(alive) < len(found) else ""
    return (
        sum(alive) / len(alive) if alive else None,
        "%",
        f"{count} slices, {len(found)} draws{dead}",
    )


class Points:
    """Probabilities of every model that can come to answer, (held-out rows, labels) each;
    accuracies in percent."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self._texts = [r.text for r in bed.held_out]
        self._truth = torch.tensor([bed.recipe.labels.index(r.label) for r in bed.held_out])
        self._release = bed.release()
        self._stages = {
            (r.shard, r.number, depth): self._asked(
                bed.ensemble(Release("release-one", "", (replace(r, stages=r.stages[:depth]),)))
            )
            for r in self._release.replicas
            for depth in range(1, r.depth + 1)
        }
        self._sisa = {
            (shard, position): self._whole(sisa_file(shard, position))
            for shard in range(bed.topology.shards)
            for position in range(bed.topology.slices)
        }
        whole, mine = bed.accuracy(self._release), self.ours(frozenset())
        if whole is None or mine is None or abs(100 * whole - mine) > 100.5 / len(self._texts):
            raise GuaranteeError(
                f"expected the ensemble's accuracy {whole} from its members' answers, got {mine}"
            )

    def joint(self) -> float:
        """Of one plain fine-tune on everything."""
        return self._accuracy([self._whole("joint.safetensors")]) or 0.0

    def ours(self, silenced: frozenset[SliceId], everyone: bool = False) -> float | None:
        """With slices silenced: the deepest live replica of each shard, or all its live replicas;
        None: none lives."""
        answers, release = [], self._bed.release(silenced)
        for shard in release.shards():
            deepest = release.serving(shard)
            live = (
                [r for r in release.replicas if r.shard == shard and r.depth]
                if everyone
                else ([deepest] if deepest else [])
            )
            if live:
                answers.append(
                    torch.stack([self._stages[r.shard, r.number, r.depth] for r in live]).mean(0)
                )
        return self._accuracy(answers)

    def sisa(self, silenced: frozenset[SliceId]) -> float | None:
        """SISA without retraining."""
        answers, first = [], self._bed.plan.replicas[0].sequence
        for shard in range(self._bed.topology.shards):
            clean = next(
                (p for p, s in enumerate(first) if SliceId(shard, s) in silenced), len(first)
            )
            if clean:
                answers.append(self._sisa[shard, clean - 1])
        return self._accuracy(answers)

    def _accuracy(self, answers: list[Tensor]) -> float | None:
        if not answers:
            return None
        return 100 * float((torch.stack(answers).mean(0).argmax(1) == self._truth).float().mean())

    def _asked(self, ensemble: Ensemble) -> Tensor:
        return ensemble.probabilities(self._texts)

    def _whole(self, file: str) -> Tensor:
        """A model with one adapter on every layer."""
        recipe = whole_recipe(plain_recipe(self._bed.recipe))
        data = (self._bed.folder / "plain" / file).read_bytes()
        stage = StageRecord("", sha256_hex(data), 0, (0,), ("",), "")
        return self._asked(
            Ensemble(
                find_backbone(recipe.model),
                recipe,
                Release("release-whole", "", (Replica(0, 0, (0,), (stage,)),)),
                lambda _: data,
            )
        )


if __name__ == "__main__":
    main()
