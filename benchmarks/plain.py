"""The plain recipe, really run: Hugging Face Trainer, dynamic padding, float32, one process with every core.

    python -m benchmarks.plain FOLDER {stages|joint|last} THREADS

`stages`: the same stages as the system's, with correct layer matching and no wiping: each replica in turn, stage by
stage, every row through the whole backbone in every step. `joint`: one plain LoRA fine-tune on all training rows.
FOLDER holds job.pickle, a `PlainJob`; the answer is one line of JSON. Not shipped in the package.
"""

import json
import pickle
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from s3t_core.learning.recipe import Recipe, StageSpec
from s3t_core.learning.replica import StagedModel
from s3t_core.records import Row


@dataclass(frozen=True)
class PlainJob:
    """What to train: stages with their rows, those of one replica after another; or everything at once."""

    recipe: Recipe
    stages: list[tuple[StageSpec, list[Row]]]
    rows: list[Row]
    held_out: list[Row]


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
    trainer = _Plain(job.recipe, folder)
    begun = time.monotonic()
    told = trainer.joint(job) if what == "joint" else trainer.stages(job, folder)
    sys.stdout.write(json.dumps({"seconds": time.monotonic() - begun - trainer.measuring, **told}) + "\n")


class _Plain:
    def __init__(self, recipe: Recipe, folder: Path) -> None:
        from s3t_core.learning.backbone import find_backbone, load_tokenizer
        self.recipe = recipe
        self.folder = folder
        self.backbone = find_backbone(recipe.model)
        self.tokenizer = load_tokenizer(self.backbone)
        self.measuring = 0.0

    def stages(self, job: PlainJob, folder: Path) -> dict[str, Any]:
        """Every stage, on top of those before it; artifacts go to FOLDER/KEY.safetensors."""
        dumps: dict[str, bytes] = {}
        for spec, rows in job.stages:
            staged = self._model()
            names = []
            for block, key in enumerate(spec.earlier, 1):
                if key is not None:
                    names.append(f"stage{block}")
                    staged.load(names[-1], block, dumps[key])
            name = f"stage{len(spec.prefix)}"
            torch.manual_seed(self.recipe.seed(spec.shard, spec.prefix))
            staged.attach(name, len(spec.prefix))
            staged.activate([*names, name])
            parameters = staged.trainable(name)
            self._fit(_Classifier(staged, name), parameters, rows)
            staged.model.requires_grad_(False)
            dumps[spec.key] = staged.dump(name)
            (folder / f"{spec.key}.safetensors").write_bytes(dumps[spec.key])
        return {"stages": len(dumps)}

    def joint(self, job: PlainJob) -> dict[str, Any]:
        """One adapter on every layer and one head, on all rows at once; its held-out accuracy."""
        from dataclasses import replace
        layers = tuple(sorted(layer for block in self.recipe.blocks for layer in block))
        self.recipe = replace(self.recipe, blocks=(layers,))
        staged = self._model()
        torch.manual_seed(0)
        staged.attach("joint", 1)
        staged.activate(["joint"])
        self._fit(_Classifier(staged, "joint"), staged.trainable("joint"), job.rows)
        begun = time.monotonic()
        accuracy = self._accuracy(staged, job.held_out)
        self.measuring += time.monotonic() - begun
        return {"accuracy": accuracy}

    def _model(self) -> StagedModel:
        from s3t_core.learning.backbone import load_model
        return StagedModel(load_model(self.backbone), self.recipe)

    def _fit(self, model: torch.nn.Module, parameters: dict[str, torch.nn.Parameter], rows: list[Row]) -> None:
        from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, get_linear_schedule_with_warmup
        training, labels = self.recipe.training, {v: i for i, v in enumerate(self.recipe.labels)}
        encoded = self.tokenizer([r.text for r in rows], truncation=True, max_length=self.recipe.max_length)
        data = [{"input_ids": ids, "attention_mask": mask, "labels": labels[r.label]}
                for ids, mask, r in zip(encoded["input_ids"], encoded["attention_mask"], rows, strict=True)]
        steps = -(-len(rows) // training["batch_size"]) * training["epochs"]
        optimizer = torch.optim.AdamW([
            {"params": [p for n, p in parameters.items() if not n.startswith("head.")],
             "lr": training["learning_rate"]},
            {"params": [p for n, p in parameters.items() if n.startswith("head.")],
             "lr": training["head_learning_rate"]}], weight_decay=0.01)
        arguments = TrainingArguments(
            output_dir=str(self.folder / "trainer"), num_train_epochs=training["epochs"], report_to=[],
            per_device_train_batch_size=training["batch_size"], save_strategy="no", logging_strategy="no",
            disable_tqdm=True, use_cpu=True, seed=training["seed"], max_grad_norm=0.0)
        Trainer(model=model, args=arguments, train_dataset=data,
                data_collator=DataCollatorWithPadding(self.tokenizer),
                optimizers=(optimizer, get_linear_schedule_with_warmup(optimizer, max(1, steps // 10), steps))).train()

    @torch.inference_mode()
    def _accuracy(self, staged: StagedModel, rows: list[Row]) -> float:
        from s3t_core.learning.encoding import TextReader, encode
        encoded, right = encode(TextReader(self.tokenizer, self.recipe.max_length), rows, self.recipe), 0
        for begin in range(0, len(rows), 32):
            batch, _, labels = encoded.batch(list(range(begin, min(begin + 32, len(rows)))))
            right += int((staged.logits("joint", batch).argmax(1) == labels).sum())
        return right / len(rows)


if __name__ == "__main__":
    main()
