"""What each module is for, by its own first sentence: docs/modules.md. `python -m tests.modules`
writes it."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "modules.md"
_HEAD = """# Modules

Each by the first sentence of its docstring. Where to begin, and how they hang together:
[the architecture](architecture.md).
"""


def page() -> str:
    """The page as it should be."""
    return _HEAD + "".join(_sections())


def _sections() -> Iterator[str]:
    for folder in _packages():
        name = folder.relative_to(ROOT).as_posix()
        yield f"\n## {name}\n\n{_sentence(folder / '__init__.py')}\n\n| module | |\n|---|---|\n"
        for path in sorted(folder.glob("*.py")):
            if path.name != "__init__.py":
                yield f"| `{path.name}` | {_sentence(path)} |\n"


def _packages() -> list[Path]:
    found = {path.parent for package in ("flows", "s3t_core") for path in _modules(package)}
    return sorted(found)


def _modules(package: str) -> list[Path]:
    paths = (ROOT / package).rglob("*.py")
    return [path for path in paths if "migrations" not in path.parts]


def _sentence(path: Path) -> str:
    """The first sentence of a docstring, or its first paragraph where no full stop ends one."""
    told = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(told.split("\n\n")[0].split())
    first, stop, _ = paragraph.partition(". ")
    return (first + stop).strip().rstrip(":").replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(page())
