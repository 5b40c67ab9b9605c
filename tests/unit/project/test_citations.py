"""What the code cites of the project's own documents is there."""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

from s3t_core.config.sections import _NOT_ISOLABLE, ADAPTER_KINDS, TrainingConfig
from s3t_core.erasure.certificate import LIMITS
from s3t_core.erasure.offline import NOT_PROVED

ROOT = Path(__file__).parents[3]
_DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_CODE = [
    p for room in ("flows", "s3t_core", "infra", "benchmarks") for p in (ROOT / room).rglob("*.py")
]
_HEADINGS = {
    line.lstrip("# ").strip().lower()
    for line in (ROOT / "docs" / "method.md").read_text().splitlines()
    if line.startswith("#")
}
_HAZARDS = dict(
    re.findall(r"^\| (\d+) \|(.*)\|$", (ROOT / "docs" / "hazards.md").read_text(), re.MULTILINE)
)


def _said(path: Path) -> str:
    """All that a module's texts say, each on one line."""
    return "\n".join(" ".join(each.split()) for each in _texts(path))


def _texts(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_every_part_of_the_method_that_is_cited_is_a_heading() -> None:
    cited = [
        (path.relative_to(ROOT).as_posix(), part)
        for path in _CODE
        for part in re.findall(r'method\.md,? "([^"]+)"', _said(path))
    ]
    assert len(cited) >= 5
    assert [each for each in cited if each[1].rstrip(".").lower() not in _HEADINGS] == []


def test_every_hazard_that_is_cited_has_its_number_and_its_test() -> None:
    assert list(map(int, _HAZARDS)) == list(range(1, len(_HAZARDS) + 1))
    cited = {
        number
        for path in [*_CODE, *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
        for numbers in re.findall(
            r"hazards? (\d+(?:(?:, | and )\d+)*)",
            _said(path) if path.suffix == ".py" else path.read_text(),
        )
        for number in re.findall(r"\d+", numbers)
    }
    assert len(cited) >= 8 and cited <= set(_HAZARDS)


@pytest.mark.parametrize("number", sorted(_HAZARDS, key=int))
def test_every_hazard_has_the_test_that_its_line_names(number: str) -> None:
    named = re.findall(r"`(hazard_\d+|tests/[\w/]+(?:\.py)?)/?`", _HAZARDS[number])
    places = [ROOT / n for n in named if n.startswith("tests/")] or [
        ROOT / "tests" / "exactness" / "test_hazards.py"
    ]
    files = [f for p in places for f in (p.rglob("test_*.py") if p.is_dir() else [p])]
    assert files and all(f.is_file() for f in files)
    tests = [n for n in named if n.startswith("hazard_")]
    assert all(n == f"hazard_{number}" for n in tests)
    assert all(any(f"def test_{n}_" in f.read_text() for f in files) for n in tests)


@pytest.mark.parametrize("name", [p.relative_to(ROOT).as_posix() for p in _DOCUMENTS])
def test_every_document_that_a_document_points_to_is_there(name: str) -> None:
    path = ROOT / name
    gone = [
        target
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text())
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert gone == []


def test_every_command_that_anything_names_is_one() -> None:
    """In documents, and in whatever the system itself says to run next."""
    from flows.cli.app import app

    there = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    there |= {str(group.name) for group in app.registered_groups}
    texts = [
        (path.relative_to(ROOT).as_posix(), each)
        for path in [*_CODE, *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
        for each in (_texts(path) if path.suffix == ".py" else [path.read_text()])
    ]
    named = [
        (name, command)
        for name, text in texts
        for command in re.findall(r"(?:`|^ +|: )s3t ([a-z][a-z-]+)\b(?!\.)", text, re.MULTILINE)
    ]
    assert len(named) > 100
    assert [each for each in named if each[1] not in there] == []


def test_what_evidence_does_not_prove_or_cover_stands_in_its_page_word_by_word() -> None:
    page = " ".join((ROOT / "docs" / "evidence.md").read_text().split())
    for said in (*LIMITS, *NOT_PROVED):
        assert f"- {said}" in page, said


_PLACES = re.compile(r"`(?P<file>[\w/]+\.py)::(?P<names>\w+(?:\.\w+)?)`")


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_document_names_in_a_module_is_there(document: Path) -> None:
    """`module.py::NAME`, of a class `module.py::NAME.PART`."""
    for file, names in _PLACES.findall(document.read_text()):
        found = [p.read_text() for p in ROOT.glob(f"*/**/{file}")] + [
            p.read_text() for p in [ROOT / file] if p.is_file()
        ]
        first, _, part = names.partition(".")
        assert found, f"{document.name}: {file}"
        assert any(
            re.search(rf"^(?:class |def |async def )?{first}\b", text, re.MULTILINE)
            and re.search(rf"\b{part or first}\b", text)
            for text in found
        ), f"{document.name}: {file}::{names}"


_SAID_OF_KINDS = {
    "prefix_tuning": "prefix",
    "prompt_tuning": "prompt",
    "p_tuning": "p-tuning",
    "adaption_prompt": "adaption prompts",
    "vblora": "vb-lora",
    "xlora": "x-lora",
}


def test_the_table_of_what_works_names_every_adapter_and_precision_that_settings_know() -> None:
    said = (ROOT / "docs" / "models.md").read_text().lower()
    taken, refused = said.split("refused: their vectors")[0], said.split("## adapters")[1]
    assert [kind for kind in ADAPTER_KINDS if f"`{kind}`" not in taken] == []
    missing = [k for k in _NOT_ISOLABLE if _SAID_OF_KINDS.get(k, k) not in refused]
    assert missing == []
    dtypes = get_args(TrainingConfig.model_fields["dtype"].annotation)
    assert dtypes and [name for name in dtypes if f"`{name}`" not in said] == []
