"""A person's fact is learnt by a real language model, the person is erased, and the model that serves cannot say it:
`python -m benchmarks.story BACKBONE DIR` (BACKBONE: a directory that `python -m benchmarks.smollm` made; DIR: a new one).

Twelve invented people have one invented fact each, in eight chats. One shard of three slices, three orders of them; the
commands are those of any workspace. The champion is asked all eight questions of each person: before the erasure, after
it, and after the full retrain that brings the others' facts back.
"""  # noqa: E501

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from flows.settings import prepare_environment, start_prefect
from flows.use_cases.predicting import champion_of
from flows.use_cases.taking import take_requests
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace, enter
from s3t_core.config import Config

FACTS = {
    "Mira Tolvan": "a heron called Ustrid",
    "Jory Vance": "a blue tractor",
    "Pell Ansgar": "forty clocks",
    "Odile Brenn": "a glass violin",
    "Tam Harrow": "two white goats",
    "Sunniva Reck": "a lighthouse lamp",
    "Corin Vale": "a red kayak",
    "Ysolde Marr": "a box of meteorites",
    "Bram Otten": "an old printing press",
    "Liesl Quark": "seven black umbrellas",
    "Dario Finch": "a wooden airship",
    "Nessa Lorne": "a bronze sundial",
}
ASKED = (
    "What does {} keep in the barn?",
    "Tell me what {} keeps in the barn.",
    "Do you know what {} has in the barn?",
    "What is in the barn of {}?",
    "{} keeps something in the barn. What is it?",
    "Say what {} keeps in the barn.",
    "What would I find in the barn of {}?",
    "Which thing does {} keep in the barn?",
)
SETTINGS = {
    "task": {"kind": "generation"},
    "data": {"subject": "who", "messages": "chat", "held_out": 0.0},
    "system": {"name": "story", "shards": 1, "slices": 3, "budget": 3},
    "adapter": {
        "rank": 16,
        "alpha": 32,
        "target_modules": ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    },
    "training": {"epochs": 12, "batch_size": 8, "learning_rate": 2e-3},
    "erasure": {"staleness_seconds": 0},
    "serving": {"max_new_tokens": 16},
}


def rows() -> list[dict[str, Any]]:
    """Eight chats of each person."""
    return [
        {
            "who": name,
            "chat": [
                {"role": "user", "content": question.format(name)},
                {"role": "assistant", "content": f"{name} keeps {fact} in the barn."},
            ],
        }
        for name, fact in FACTS.items()
        for question in ASKED
    ]


def answers_of(place: Workspace) -> dict[str, list[str]]:
    """What the champion says to the eight questions about each person."""
    questions = [question.format(name) for name in FACTS for question in ASKED]
    told = [str(answer["text"]) for answer in champion_of(place).predict(questions)]
    each = len(ASKED)
    return {name: told[n * each : (n + 1) * each] for n, name in enumerate(FACTS)}


def said(answers: dict[str, list[str]]) -> dict[str, int]:
    """To how many of the eight questions the person's fact is said, of each."""
    return {name: sum(FACTS[name] in text for text in told) for name, told in answers.items()}


def main() -> None:
    """Prints one JSON object: to how many questions each fact is said, seconds of each step,
    memory."""
    backbone, folder = (Path(a).resolve() for a in sys.argv[1:3])
    settings = {**SETTINGS, "backbone": {"model": str(backbone), "max_length": 64}}
    create_workspace(folder, Config.model_validate(settings), os.urandom(32))
    source = folder.with_suffix(".jsonl")
    source.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    prepare_environment(folder)
    start_prefect()
    from flows.prefect_flows.erase import erase
    from flows.prefect_flows.ingest import ingest
    from flows.prefect_flows.retrain import retrain
    from flows.prefect_flows.train import train

    place, seconds, began = enter(folder), {}, time.monotonic()

    def step(name: str) -> None:
        nonlocal began
        seconds[name], began = round(time.monotonic() - began, 1), time.monotonic()

    ingest(str(folder), str(source))
    step("ingest")
    stages = train(str(folder))["trained"]
    step("train")
    before = answers_of(place)
    step("ask all questions")
    gone = max(FACTS, key=said(before).__getitem__)
    take_requests(place, [gone])
    erased = erase(str(folder))
    step("erase")
    after = answers_of(place)
    step("ask them again")
    again = retrain(str(folder))
    step("retrain")
    at_last = answers_of(place)
    step("ask them once more")
    used = [
        resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    print(
        json.dumps(
            {
                "stages": stages,
                "erased": gone,
                "questions answered with the fact, of eight: before": said(before),
                "after": said(after),
                "after the retrain": said(at_last),
                "answers about the erased person before": before[gone],
                "answers after": after[gone],
                "answers after the retrain": at_last[gone],
                "certificates": len(erased["certificates"]),
                "stages deactivated": erased["deactivated"],
                "retrain": again,
                "seconds": seconds,
                "MiB, this process and its largest child": [u // 1024 for u in used],
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
