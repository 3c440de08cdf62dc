"""The README's commands are the program's: each one parses, and the files that it names are there."""

import re
import shlex
from pathlib import Path

import click
import pytest
import typer

from midspan.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^ {4}(?:\$ )?midspan (.*?)(?:  +#.*)?$", re.MULTILINE)
LINES = [(page.name, line) for page in PAGES for line in COMMAND.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_command_of_the_documentation_parses(page: str, line: str) -> None:
    command: click.Command = typer.main.get_command(app)
    words = shlex.split(line)
    context = click.Context(command)
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None, f"{page} names the command {name}"
        command = found
        context = command.make_context(
            name or "", list(words) if not isinstance(command, click.Group) else [], context
        )
    for word in words:
        if word.startswith("recipes/"):
            assert (ROOT / word).exists(), f"{page} names {word}"


def test_the_readme_has_commands() -> None:
    assert any(page == "README.md" for page, _ in LINES)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_pictures_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
