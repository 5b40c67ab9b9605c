"""The plain recipes, really run: Hugging Face Trainer, dynamic padding, float32, one process with
every core.

    python -m benchmarks.plain FOLDER {stages|joint|sisa|retrain} THREADS

`stages`: the same stages as the system's, with correct layer matching and no wiping: each replica
in turn, stage by stage, every row through the whole backbone in every step. `joint`: one plain LoRA
fine-tune on all training rows. `sisa`: per shard one LoRA on every layer, trained on slice 1, then
on from there on slices 1 and 2, and so on, a checkpoint at each (Bourtoule et al., section IV).
`retrain`: what SISA does when a record of the second slice of shard 0 is deleted: from the last
clean checkpoint on, without the record.

FOLDER holds job.pickle, a `PlainJob`; the answer is one line of JSON, checkpoints go to FOLDER. Not
shipped in the package.
"""

import json
import pickle
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from s3t_core.learning.recipe import Recipe, StageSpec
from s3t_core.learning.replica import StagedModel
from s3t_core.records import Row

WHOLE = "whole"
RETRAINED = 1
"""Position (from 0) of the slice whose record `retrain` deletes."""


@dataclass(frozen=True)
class PlainJob:
    """What to train. `stages` with their rows, those of one replica after another; `shards`: rows
    by shard and slice, in the order of the shard's first sequence."""

    recipe: Recipe
    stages: list[tuple[StageSpec, list[Row]]]
    shards: list[list[list[Row]]]


def plain_recipe(recipe: Recipe) -> Recipe:
    """The recipe in float32, whatever the system would take."""
    return replace(recipe, training={**recipe.training, "dtype": "float32"})


def whole_recipe(recipe: Recipe) -> Recipe:
    """The recipe with one block of every layer."""
    return replace(
        recipe, blocks=(tuple(sorted(layer for block in recipe.blocks for layer in block)),)
    )


def sisa_file(shard: int, position: int) -> str:
    """Checkpoint of a shard after the slice at `position`, from 0."""
    return f"sisa-{shard}-{position}.safetensors"


class _Classifier(torch.nn.Module):
    """What Trainer trains: the active adapters and one head."""

    def __init__(self, staged: StagedModel, name: str) -> None:
        super().__init__()
        self.staged, self.name = staged, name
        self.model, self.heads = staged.model, staged.heads  # so that Trainer sees the parameters

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any) -> dict[str, Any]:
        """Loss and logits, as Trainer wants them."""
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits = self.staged.classify(self.name, states, {"attention_mask": attention_mask})
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def main() -> None:
    """Train and tell."""
    folder, what, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(threads)
    job: PlainJob = pickle.loads((folder / "job.pickle").read_bytes())  # noqa: S301  # written by the benchmark
    trainer = _Plain(job, folder)
    begun = time.monotonic()
    ways = {
        "stages": trainer.stages,
        "joint": trainer.joint,
        "sisa": trainer.sisa,
        "retrain": trainer.retrain,
    }
    trained = ways[what]()
    sys.stdout.write(json.dumps({"seconds": time.monotonic() - begun, "trained": trained}) + "\n")


class _Plain:
    def __init__(self, job: PlainJob, folder: Path) -> None:
        from s3t_core.learning.backbone import find_backbone, load_tokenizer

        self.job = job
        self.folder = folder
        self.backbone = find_backbone(job.recipe.model)
        self.tokenizer = load_tokenizer(self.backbone)

    def stages(self) -> int:
        """Every stage, on top of those before it."""
        recipe, dumps = self.job.recipe, dict[str, bytes]()
        for spec, rows in self.job.stages:
            staged = self._model(recipe)
            names = []
            for block, key in enumerate(spec.earlier, 1):
                if key is not None:
                    names.append(f"stage{block}")
                    staged.load(names[-1], block, dumps[key])
            name = f"stage{len(spec.prefix)}"
            torch.manual_seed(recipe.seed(spec.shard, spec.prefix))
            staged.attach(name, len(spec.prefix))
            staged.activate([*names, name])
            self._fit(staged, name, rows)
            dumps[spec.key] = staged.dump(name)
            (self.folder / f"{spec.key}.safetensors").write_bytes(dumps[spec.key])
        return len(dumps)

    def joint(self) -> int:
        """One adapter on every layer and one head, on all rows at once."""
        rows = [r for shard in self.job.shards for part in shard for r in part]
        (self.folder / "joint.safetensors").write_bytes(self._whole(None, rows))
        return 1

    def sisa(self) -> int:
        """Every shard, slice by slice."""
        for shard in range(len(self.job.shards)):
            self._sisa(shard, 0, self.job.shards[shard], None, self.folder)
        return sum(map(len, self.job.shards))

    def retrain(self) -> int:
        """Shard 0 without one record of the slice at `RETRAINED`."""
        slices = [
            part[1:] if position == RETRAINED else part
            for position, part in enumerate(self.job.shards[0])
        ]
        clean = (self.folder / sisa_file(0, RETRAINED - 1)).read_bytes()
        again = self.folder / "retrained"
        again.mkdir(exist_ok=True)
        self._sisa(0, RETRAINED, slices, clean, again)
        return len(slices) - RETRAINED

    def _sisa(
        self, shard: int, first: int, slices: list[list[Row]], weights: bytes | None, folder: Path
    ) -> None:
        for position in range(first, len(slices)):
            weights = self._whole(weights, [r for part in slices[: position + 1] for r in part])
            (folder / sisa_file(shard, position)).write_bytes(weights)

    def _whole(self, weights: bytes | None, rows: list[Row]) -> bytes:
        """One adapter on every layer, from `weights` on."""
        staged = self._model(whole_recipe(self.job.recipe))
        torch.manual_seed(0)
        if weights is None:
            staged.attach(WHOLE, 1)
        else:
            staged.load(WHOLE, 1, weights)
        staged.activate([WHOLE])
        self._fit(staged, WHOLE, sorted(rows))
        return staged.dump(WHOLE)

    def _model(self, recipe: Recipe) -> StagedModel:
        from s3t_core.learning.backbone import load_model

        return StagedModel(load_model(self.backbone), recipe)

    def _fit(self, staged: StagedModel, name: str, rows: list[Row]) -> None:
        from transformers import (
            DataCollatorWithPadding,
            Trainer,
            TrainingArguments,
            get_linear_schedule_with_warmup,
        )

        recipe, parameters = self.job.recipe, staged.trainable(name)
        training, labels = recipe.training, {v: i for i, v in enumerate(recipe.labels)}
        encoded = self.tokenizer(
            [r.text for r in rows], truncation=True, max_length=recipe.max_length
        )
        data = [
            {"input_ids": ids, "attention_mask": mask, "labels": labels[r.label]}
            for ids, mask, r in zip(
                encoded["input_ids"], encoded["attention_mask"], rows, strict=True
            )
        ]
        steps = -(-len(rows) // training["batch_size"]) * training["epochs"]
        optimizer = torch.optim.AdamW(
            [
                {
                    "params": [p for n, p in parameters.items() if not n.startswith("head.")],
                    "lr": training["learning_rate"],
                },
                {
                    "params": [p for n, p in parameters.items() if n.startswith("head.")],
                    "lr": training["head_learning_rate"],
                },
            ],
            weight_decay=0.01,
        )
        arguments = TrainingArguments(
            output_dir=str(self.folder / "trainer"),
            num_train_epochs=training["epochs"],
            report_to=[],
            per_device_train_batch_size=training["batch_size"],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            seed=training["seed"],
            max_grad_norm=0.0,
        )
        Trainer(
            model=_Classifier(staged, name),
            args=arguments,
            train_dataset=data,
            data_collator=DataCollatorWithPadding(self.tokenizer),
            optimizers=(
                optimizer,
                get_linear_schedule_with_warmup(optimizer, max(1, steps // 10), steps),
            ),
        ).train()
        staged.model.requires_grad_(False)


if __name__ == "__main__":
    main()
