"""The command line's surface, frozen: a change here is a change for every user and every script of theirs."""

import subprocess
import sys

import click
import pytest
import typer

from midspan.cli import app

_STAGE = {
    *("folder", "--model", "--endpoint", "--api-key-file", "--temperature", "--top-p", "--parallel", "--seed"),
    *("--decoder", "--bits", "--json"),
}
SURFACE = {
    "chat": {
        *("model", "--system", "--load", "--max-tokens", "--temperature", "--top-p", "--seed"),
        *("--decoder", "--bits"),
    },
    "complete": {
        *("model", "prompt", "--max-tokens", "--temperature", "--top-p", "--seed"),
        *("--decoder", "--bits", "--json"),
    },
    "card": {"runs", "--results", "--name", "--licence", "--notes", "--out", "--json"},
    "convert": {"source", "target", "--to", "--type", "--shards", "--json"},
    "corpus build": {
        *("sources", "--out", "--config", "--overwrite", "--json"),
        *(
            "--languages",
            "--licences",
            "--decontaminate",
            "--held-out",
            "--held-out-share",
            "--seed",
            "--exclude",
            "--max-bytes",
        ),
        *("--quality", "--vendored", "--redact", "--near-duplicates"),
        *("--workers", "--engine", "--ray-address"),
    },
    "corpus remove": {"folder", "--repo", "--workers", "--json"},
    "corpus show": {"folder", "--tokens", "--html", "--json"},
    "docstring": {"model", "place", "--max-tokens", "--write", "--json"},
    "eval": {
        *("model", "--tasks", "--data", "--prompt-variant", "--limit", "--base", "--out", "--json"),
        *("--samples", "--temperature", "--top-p", "--seed", "--max-tokens", "--k"),
        *("--upstream", "--served-as", "--judge", "--sandbox", "--workers", "--batch", "--decoder", "--bits"),
        *("--corpus", "--per-kind", "--window", "--rescore", "--doctor"),
    },
    "infill": {
        *("model", "place", "--layout", "--max-tokens", "--temperature", "--top-p", "--seed"),
        *("--decoder", "--bits", "--raw", "--json"),
    },
    "instruct build": {
        *("sources", "--out", "--preferences", "--safety", "--benchmarks", "--skip-bad", "--seed", "--json"),
    },
    "instruct questions": {
        *_STAGE,
        *(
            "--number",
            "--per-request",
            "--language",
            "--seeds",
            "--send-code",
            "--near-duplicates",
            "--benchmarks",
        ),
    },
    "instruct solutions": {*_STAGE, "--number", "--mutants", "--max-tokens", "--workers", "--cpu-seconds"},
    "instruct tests": {*_STAGE, "--max-tokens", "--workers", "--cpu-seconds"},
    "lsp": {"model", "--server", "--tcp", "--decoder", "--bits"},
    "models info": {"model", "--json"},
    "models list": {"--json"},
    "models pull": {"name", "--json"},
    "plan": {
        *("recipes", "--gpus", "--price-per-hour", "--pue", "--shape", "--set", "--run", "--minutes", "--json"),
    },
    "report": {"runs", "--out", "--json"},
    "run": {"lineage", "--to", "--runs", "--set", "--dry-run", "--json"},
    "sandbox check": {"--json"},
    "sandbox prepare": {"--json"},
    "serve": {
        *("models", "--adapter", "--name", "--host", "--port", "--api-key-file", "--open-to-all"),
        *("--requests-per-minute", "--queue", "--timeout", "--max-body", "--max-prompt", "--layout"),
        *("--cors-origin", "--upstream", "--quiet", "--decoder", "--bits"),
    },
    "train": {"recipe", "--out", "--set", "--resume"},
    "types": {"model", "file", "--samples", "--write", "--json"},
}


def _commands(command: click.Command, name: str = "") -> dict[str, click.Command]:
    children = getattr(command, "commands", None)
    if children is None:
        return {name: command}
    found: dict[str, click.Command] = {}
    for child_name, child in children.items():
        found |= _commands(child, f"{name} {child_name}".strip())
    return found


COMMANDS = _commands(typer.main.get_command(app))


def _surface(command: click.Command) -> set[str]:
    names = set()
    for parameter in command.params:
        is_argument = parameter.param_type_name == "argument"
        names.add(parameter.name if is_argument else max(parameter.opts, key=len))
    return {name for name in names if name is not None}


def test_the_surface_is_what_is_written_here() -> None:
    assert {name: _surface(command) for name, command in COMMANDS.items()} == SURFACE


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    assert f"midspan {name}" in (command.epilog or "")
    assert all(getattr(p, "help", None) for p in command.params if p.name != "help")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "nowhere.toml"], "recipe nowhere.toml cannot be read"),
        (["corpus", "build", "nowhere", "--out", "x"], "nowhere"),
        (["models", "info", "nowhere"], "nowhere"),
        (["complete", "nowhere", "def"], "nowhere"),
        (["infill", "nowhere", "a.py:1:1"], "a.py cannot be read"),
        (["eval", "nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["docstring", "nowhere", "a.py"], "'a.py' is no place"),
        (["types", "nowhere", "a.py"], "a.py cannot be read"),
        (["models", "pull", "smollm"], "smollm2-135m"),
        (["plan", "nowhere.toml"], "recipe nowhere.toml cannot be read"),
        (["plan", "recipes/code-llama/7b-code.toml", "--gpus", "8xA99"], "names no GPU that is known"),
        (["convert", "nowhere", "out.gguf", "--to", "gguf"], "nowhere"),
        (["chat", "nowhere"], "nowhere"),
        (["instruct", "questions", "x"], "give --model NAME_OR_PATH, or --endpoint http://HOST:PORT"),
        (["instruct", "build"], "there is nothing to build from"),
        (["train"], "Missing argument"),
        (["run", "nowhere"], "nowhere holds no recipe"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments: list[str], sentence: str) -> None:
    command = [sys.executable, "-m", "midspan", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert sentence in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not result.stdout
