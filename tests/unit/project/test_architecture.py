"""docs/architecture.md names files that are there, and every room and lock that there is."""

import re
from pathlib import Path

from tests import modules

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "architecture.md").read_text()


def _named(pattern: str) -> set[str]:
    return {name for code in re.findall(r"`([^`\n]+)`", TEXT) for name in re.findall(pattern, code)}


def test_every_file_that_it_names_is_there() -> None:
    there = [
        p.relative_to(ROOT).as_posix() for p in ROOT.glob("*/**/*.py") if ".venv" not in p.parts
    ]
    named = _named(r"^[\w/]+\.py")
    assert len(named) > 30
    assert {n for n in named if not any(f"/{p}".endswith(f"/{n}") for p in there)} == set()


def test_every_room_of_flows_is_told() -> None:
    rooms = {p.parent.name for p in (ROOT / "flows").glob("*/__init__.py")} - {"migrations"}
    assert {room for room in rooms if f"`flows/{room}/`" not in TEXT} == set()


def test_the_list_of_modules_is_what_they_say_of_themselves() -> None:
    """`python -m tests.modules` writes it."""
    assert modules.PAGE.read_text() == modules.page()


def test_every_lock_is_told() -> None:
    made = re.compile(r'"((?:\w+)\.lock)"')
    sources = [p.read_text() for room in ("flows", "s3t_core") for p in (ROOT / room).rglob("*.py")]
    locks = {name for text in sources for name in made.findall(text)}
    told = {f"{name}.lock" for name in ["users", "starting", "server"]}
    assert {lock for lock in locks - told if lock not in TEXT} <= {"dvc.lock", "data.dvc.lock"}
