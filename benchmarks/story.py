"""A person's fact is learnt by a real language model, the person is erased, and the model that serves cannot say it:
`python -m benchmarks.story BACKBONE DIR` (BACKBONE: a directory that `python -m benchmarks.smollm` made; DIR: a new one).

Twelve invented people have one invented fact each, in eight chats. One shard of three slices, three orders of them; the
commands are those of any workspace. Asked is the champion, before and after, the same question of each.
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


def known(place: Workspace) -> dict[str, str]:
    """What the champion says of each person."""
    questions = [ASKED[0].format(name) for name in FACTS]
    answers = champion_of(place).predict(questions)
    return {name: str(a["text"]) for name, a in zip(FACTS, answers, strict=True)}


def says(told: dict[str, str]) -> set[str]:
    """Of whom the fact is said."""
    return {name for name, text in told.items() if FACTS[name] in text}


def main() -> None:
    """Prints one JSON object: who is known before and after, seconds of each step, memory."""
    backbone, folder = (Path(a).resolve() for a in sys.argv[1:3])
    settings = {**SETTINGS, "backbone": {"model": str(backbone), "max_length": 64}}
    create_workspace(folder, Config.model_validate(settings), os.urandom(32))
    source = folder.with_suffix(".jsonl")
    source.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    prepare_environment(folder)
    start_prefect()
    from flows.prefect_flows.erase import erase
    from flows.prefect_flows.ingest import ingest
    from flows.prefect_flows.train import train

    place, seconds, began = enter(folder), {}, time.monotonic()

    def step(name: str) -> None:
        nonlocal began
        seconds[name], began = round(time.monotonic() - began, 1), time.monotonic()

    ingest(str(folder), str(source))
    step("ingest")
    stages = train(str(folder))["trained"]
    step("train")
    before = known(place)
    step("ask twelve questions")
    gone = next(iter(says(before)))
    take_requests(place, [gone])
    erased = erase(str(folder))
    step("erase")
    after = known(place)
    step("ask them again")
    used = [
        resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    print(
        json.dumps(
            {
                "stages": stages,
                "known before": sorted(says(before)),
                "erased": gone,
                "its answer before": before[gone],
                "its answer after": after[gone],
                "known after": sorted(says(after)),
                "certificates": len(erased["certificates"]),
                "stages deactivated": erased["deactivated"],
                "seconds": seconds,
                "MiB, this process and its largest child": [u // 1024 for u in used],
                "answers after": after,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
