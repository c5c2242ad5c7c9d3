"""Promises that the project as a whole makes: commands, documents, imports."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from shards.console import KnownErrors

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PACKAGES = ("packer", "shards", "loaders", "tracker", "benchmarks")


def commands() -> list[tuple[str, str, click.Command]]:
    found = []
    for package in PACKAGES:
        group = importlib.import_module(f"{package}.cli").main
        assert isinstance(group, click.Group)
        found += [(package, name, command) for name, command in group.commands.items()]
    return found


@pytest.mark.parametrize(("package", "name", "command"), commands())
def test_every_command_has_help_an_example_and_a_line_in_the_readme(
    package: str, name: str, command: click.Command
) -> None:
    assert command.help
    whole = f"{command.help}\n{command.epilog or ''}"
    assert f"python -m {package} {name}" in whole
    assert f"python -m {package} {name}" in README
    assert isinstance(command, KnownErrors)  # prints them in one line


def test_nothing_imports_the_training_script() -> None:
    importing = re.compile(r"^\s*(from|import) train\b", re.MULTILINE)
    files = [path for name in (*PACKAGES, "configs") for path in (ROOT / name).rglob("*.py")]
    assert len(files) > 40
    assert [path for path in files if importing.search(path.read_text())] == []


@pytest.mark.parametrize(
    "module", ["shards.cli", "packer.cli", "loaders.cli", "tracker.cli", "configs.strict"]
)
def test_small_commands_import_neither_torch_nor_dali(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "print([name for name in ('torch', 'torchvision', 'webdataset', 'nvidia.dali') "
        "if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


def test_links_in_documents_lead_to_files() -> None:
    for document in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
