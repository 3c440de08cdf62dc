"""The README is true: its commands parse and run, its files are there, its figures are those measured.

Its whole path for one's own repository runs in a slow test, on the real base and for a few steps.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from midspan.cache import model_file
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


README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO = {
    "PSM: bits per byte of the middle": ("psm all", "bits per byte"),
    "PSM: the same, with its end": ("psm all", "bits with the end"),
    "PSM: edit similarity, of 100": ("psm all", "edit similarity"),
    "PSM: ended by itself": ("psm all", "ended by itself"),
    "SPM: bits per byte of the middle": ("spm all", "bits per byte"),
    "SPM: the same, with its end": ("spm all", "bits with the end"),
    "SPM: edit similarity, of 100": ("spm all", "edit similarity"),
    "SPM: ended by itself": ("spm all", "ended by itself"),
    "PSM: exact match": ("psm all", "exact match"),
    "SPM: exact match": ("spm all", "exact match"),
    "left to right: bits per byte": ("left to right", "bits per byte"),
}
"""Lines of the README's table by the rows of docs/results/demo.json that they show."""
SHIPPED = {
    "SPM, lines: matched exactly, ended by itself": ("spm line", "exact match"),
    "SPM, lines: matched up to the engine's line stop": ("spm line", "exact line"),
    "SPM: ends by itself": ("spm all", "ended by itself"),
    "SPM: bits per byte of a middle": ("spm all", "bits per byte"),
    "SPM: bits of its end": ("spm all", "bits of the end"),
    "PSM: bits per byte of a middle": ("psm all", "bits per byte"),
    "from left to right: bits per byte": ("left to right", "bits per byte"),
}
"""The same of the model that comes with Midspan, by docs/results/infilling.json."""


def shown(row: dict[str, Any], which: str, interval: str) -> str:
    """A score as the README writes it."""
    low, high = row[interval]
    if row["unit"] == "%":
        return f"{row[which]:.0f} % ({low:.0f} to {high:.0f})"
    digits = 1 if row["unit"] == "of 100" else 2
    return f"{row[which]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


@pytest.mark.parametrize(
    ("file", "line", "key"),
    [("demo", *item) for item in DEMO.items()] + [("infilling", *item) for item in SHIPPED.items()],
)
def test_figures_before_and_after_are_those_measured(file: str, line: str, key: tuple[str, str]) -> None:
    results = json.loads((ROOT / "docs" / "results" / f"{file}.json").read_text(encoding="utf-8"))
    row = next(row for row in results["rows"] if (row["group"], row["metric"]) == key)
    before, after = shown(row, "before", "before_interval"), shown(row, "ours", "interval")
    assert f"| {line} | {before} | {after} |" in README


SPEEDS = {
    ("keystrokes", "auto: first token, p50", 1): "first text after a key, 3,000 tokens around it",
    ("keystrokes", "first token beside llama.cpp (SPM)", 1): "the same, Code Llama's SPM order",
    ("keystrokes", "auto: a suggestion of a line, p50", 1): "a whole line after a key",
    ("serve", "HTTP over the engine, p95", 1): "HTTP around the engine, 95th percentile",
    ("judge", "HumanEval, compat", 0): "programs judged a second, in the jail",
    ("instruct", "400 questions, ten solutions each", 0): "questions a minute, each with tests",
}
"""Lines of the README's table by the benchmark's row that they show, and its decimals."""


@pytest.mark.parametrize("row", SPEEDS)
def test_the_speeds_are_those_measured(row: tuple[str, str, int]) -> None:
    """Ours, and the peer that is named, as the benchmark's file has them."""
    name, label, digits = row
    results = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    [found] = [each for each in results["rows"] if each["row"] == label]
    [line] = [line for line in README.splitlines() if line.startswith(f"| {SPEEDS[row]}")]
    _, _, ours, beside, command, _ = (cell.strip() for cell in line.split("|"))
    assert ours == f"{found['ours']:,.{digits}f}" + (" ms" if found["unit"] == "ms" else "")
    assert command == name
    for peer, value in found["peers"].items():
        if beside.startswith(f"{peer}:"):
            assert beside.removeprefix(f"{peer}: ").removesuffix(" ms") == f"{value:,.0f}"


@pytest.mark.slow
def test_the_path_of_ones_own_repository_runs_as_the_readme_says(tmp_path: Path) -> None:
    """Two repositories of known code in place of the user's, and four steps in place of two thousand."""
    base = model_file("smollm2-135m")
    if not base.is_file():
        pytest.skip("smollm2-135m is not here; `midspan models pull smollm2-135m` fetches it")
    standard_library = Path(os.__file__).parent
    packages = (
        "asyncio",
        "concurrent",
        "email",
        "html",
        "http",
        "importlib",
        "json",
        "logging",
        "multiprocessing",
    )
    for number, package in enumerate((*packages, "unittest", "urllib", "wsgiref", "xml", "xmlrpc", "zoneinfo")):
        folder = tmp_path / "src" / ("service", "library")[number % 2] / package
        shutil.copytree(standard_library / package, folder, ignore=shutil.ignore_patterns("__pycache__"))
    lines = ["def area(width, height):", '    """Of a rectangle."""', "    return width * height", ""] * 40
    (tmp_path / "src" / "service" / "app.py").write_text("\n".join(["import math", *lines]))  # line 120 is code
    section = README.partition("## Your own repository")[2].partition("\n## ")[0]
    commands = [shlex.split(line) for line in COMMAND.findall(section)]
    commands += [shlex.split(line) for line in re.findall(r"`midspan (.*?)`", section)]
    assert [words[0] for words in commands] == ["models", "corpus", "train", "eval", "infill", "convert"]
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    for words in commands:
        shorter = [word.replace("~", str(tmp_path)).replace("train.steps=2000", "train.steps=4") for word in words]
        shorter += ["--per-kind", "2"] if words[0] == "eval" else []
        command = [sys.executable, "-m", "midspan", *shorter]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.join(shorter)}: {done.stderr[-2000:]}"
    for made in ("model/model.safetensors", "results.json", "report.html"):
        assert (tmp_path / "runs" / "ours" / made).is_file(), made
    assert (tmp_path / "ours.gguf").is_file()
