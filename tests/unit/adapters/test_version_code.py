"""The code that lies in every registered version stands on one promised name: versions outlive
releases."""

import ast
import importlib
from pathlib import Path

from flows import adapters

CODE = Path(adapters.__file__).with_name("champion.py")
OURS = ("flows", "s3t_core")


def _imports(source: str) -> list[tuple[str, str]]:
    """(module, name) for each import anywhere in a file; the name is empty where the module itself
    is imported."""
    found: list[tuple[str, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            found += [("." * node.level + (node.module or ""), alias.name) for alias in node.names]
    return found


def test_the_code_within_a_version_takes_one_name_of_ours_and_it_is_the_promised_one() -> None:
    imports = _imports(CODE.read_text())
    assert [i for i in imports if i[0].startswith((".", *OURS))] == [("flows.champion", "Champion")]
    assert "import_module" not in CODE.read_text() and "__import__" not in CODE.read_text()


def test_the_promised_name_is_there_and_needs_no_arguments() -> None:
    from mlflow.pyfunc import PythonModel

    made = importlib.import_module("flows.champion").Champion()
    assert isinstance(made, PythonModel) and callable(made.load_context) and callable(made.predict)
