"""The directory that a command is called in may be anybody's: no settings are taken from it."""

from pathlib import Path

import pytest

from flows.workspace.creating import create_workspace
from s3t_core.config import Config
from tests.flows.test_cli import _run

pytestmark = pytest.mark.slow

PROGRAM = """version: 1
disable_existing_loggers: false
formatters:
  any:
    (): subprocess.check_output
    args: [touch, %s]
handlers: {}
loggers: {}
"""


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prefect.toml", '[logging]\nconfig_path = "%s"\n'),
        (".env", "PREFECT_LOGGING_SETTINGS_PATH=%s\nPREFECT_LOGGING_CONFIG_PATH=%s\n"),
        ("pyproject.toml", '[tool.prefect.logging]\nconfig_path = "%s"\n'),
    ],
)
def test_a_command_takes_no_orders_from_the_directory_that_it_is_called_in(
    tmp_path: Path, name: str, content: str
) -> None:
    workspace, anybodys = tmp_path / "w", tmp_path / "anybodys"
    create_workspace(workspace, Config.model_validate({"prefect": {"idle_minutes": 1}}))
    anybodys.mkdir()
    (anybodys / "orders.yml").write_text(PROGRAM % (anybodys / "done"))
    (anybodys / name).write_text(content.replace("%s", str(anybodys / "orders.yml")))
    _run("erase", "--workspace", str(workspace), cwd=anybodys)
    _run("stop", "--workspace", str(workspace), cwd=anybodys)
    assert sorted(p.name for p in anybodys.iterdir()) == sorted([name, "orders.yml"])
