"""The paper's experiments in miniature, on midspan-135m: docs/results/experiments.{json,md,html}.

    python scripts/experiments.py --data benchmarks [--only single-line,temperature]

Every step is a command of Midspan, shown before it runs, with its own folder under runs/experiments: what is there
is not done again. The corpus is that of recipes/smol/adapter/code.toml (scripts/fetch_sources.py says how it is
made). The results are small on purpose: a small model, few questions, and intervals beside every figure.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from midspan.chart import Line, chart
from midspan.evaluate.results import commit, hardware
from midspan.files import write_json, write_text
from midspan.page import html_page

ROOT = Path(__file__).resolve().parent.parent
RUNS = Path("runs/experiments")
RESULTS = ROOT / "docs" / "results"
MODEL, BASE, CORPUS = "midspan-135m", "smollm2-135m", "corpora/python-packages"
LAYOUTS = ("psm", "spm", "psm-healed", "spm-healed")
WHOLE = ("", "left to right", "mean of languages")
"""Groups that are shown; the others are in the reports."""
KEPT = (
    *("row", "task", "variant", "group", "metric", "temperature", "unit", "better", "n", "samples"),
    *("ours", "interval", "before", "before_interval", "difference", "difference_interval", "p"),
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command, the file that it leaves behind, and what its results are called where there are several."""

    words: tuple[str, ...]
    leaves: str
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What is asked, of which part of the paper, and the steps that answer it."""

    name: str
    title: str
    about: str
    steps: tuple[Step, ...]
    metrics: tuple[str, ...]


def evaluation(name: str, model: str, tasks: str, *options: str, label: str = "") -> Step:
    """`midspan eval` of a model into a folder of its own."""
    folder = RUNS / name
    words = ("eval", model, "--tasks", tasks, *options, "--data", "DATA", "--out", str(folder))
    return Step(words=words, leaves=str(folder / "results.json"), label=label)


def training(name: str, *settings: str) -> Step:
    """A short run of the demonstration's recipe."""
    folder = RUNS / name
    changed = [word for setting in (f"data.corpus={CORPUS}", *settings) for word in ("--set", setting)]
    words = ("train", "recipes/smol/code.toml", *changed, "--out", str(folder))
    return Step(words=words, leaves=str(folder / "model"))


def of(task: str, variants: Sequence[str] = LAYOUTS) -> str:
    """A task in several prompts, as `--tasks` takes them."""
    return ",".join(f"{task}:{variant}" for variant in variants)


BESIDE = ("--base", BASE)
FEW = ("--limit", "40", "--max-tokens", "256")
EXPERIMENTS = (
    Experiment(
        name="functions",
        title="Python functions from words (Tables 2 and 3)",
        about="Greedy. Five problems of APPS are at hand, of its training set; their score says little.",
        steps=(evaluation("functions", MODEL, "humaneval,mbpp,apps-sample:bigcode", *FEW, *BESIDE),),
        metrics=("pass@1",),
    ),
    Experiment(
        name="languages",
        title="Functions in other languages (Table 4)",
        about="MultiPL-E, and HumanEvalPack to write and to mend; greedy, a part of the questions drawn by lot.",
        steps=(evaluation("languages", MODEL, "multipl-e,humanevalpack,humanevalpack:fix", *FEW, *BESIDE),),
        metrics=("pass@1",),
    ),
    Experiment(
        name="files",
        title="Whole files: perplexity, the next line, types (Table 7, Figure 4a)",
        about="Held-out files of the corpus; `lcc-like` and `types-like` stand in for data that is not at hand.",
        steps=(
            evaluation(
                "files",
                MODEL,
                "perplexity,context-perplexity:2048,lcc-like:4000,types-like",
                *("--limit", "24", "--corpus", CORPUS, *BESIDE),
            ),
        ),
        metrics=(
            *("bits per byte", "exact match", "edit similarity", "is a type"),
            *("perplexity at 64 to 128", "perplexity at 1024 to 2048"),
        ),
    ),
    Experiment(
        name="text",
        title="Truth, toxicity, bias, requests to decline (Tables 9, 19 and 20)",
        about="Judges are the baselines trained on the data at hand: to compare these two, and with no paper.",
        steps=(
            evaluation(
                "text",
                MODEL,
                "truthfulqa,truthfulqa-mc,toxigen,bold,red-team",
                *("--limit", "60", "--max-tokens", "48", *BESIDE),
            ),
        ),
        metrics=(*("true and informative", "MC1", "MC2", "toxic", "sentiment", "refusals", "false refusals"),),
    ),
    Experiment(
        name="single-line",
        title="One line, by layout, healed and not (Tables 6 and 14)",
        about="HumanEval's single lines, ended by the line; the base has new sentinels and has not been trained.",
        steps=(
            evaluation("single-line", MODEL, of("infilling-single-line"), "--limit", "100", *BESIDE),
            evaluation(
                "santacoder", MODEL, of("santacoder-fim", ("psm", "spm-healed")), "--limit", "150", *BESIDE
            ),
        ),
        metrics=("pass@1", "exact match"),
    ),
    Experiment(
        name="random-span",
        title="Characters anywhere, by layout, healed and not (Table 14)",
        about="HumanEval's random spans, ended by the model alone and cut after 96 tokens.",
        steps=(
            evaluation(
                "random-span",
                MODEL,
                of("infilling-random-span-light"),
                *("--limit", "60", "--max-tokens", "96"),
            ),
        ),
        metrics=("pass@1",),
    ),
    Experiment(
        name="temperature",
        title="Temperature",
        about="HumanEval's single lines, SPM with healing, five samples of each.",
        steps=(
            evaluation(
                "temperature",
                MODEL,
                "infilling-single-line:spm-healed",
                *("--limit", "60", "--samples", "5", "--temperature", "0.1,0.4,0.8"),
                *("--k", "1,5"),
            ),
        ),
        metrics=("pass@1", "pass@5"),
    ),
    Experiment(
        name="quantised",
        title="Weights in 8 and in 4 bits",
        about="HumanEval's single lines, SPM with healing, by the fused decoder.",
        steps=tuple(
            evaluation(
                f"bits-{name.replace(' ', '-')}",
                MODEL,
                "infilling-single-line:spm-healed",
                *("--limit", "100", *options),
                label=name,
            )
            for name, options in (
                ("bf16", ()),
                ("8 bits", ("--decoder", "fused", "--bits", "8")),
                ("4 bits", ("--decoder", "fused", "--bits", "4")),
            )
        ),
        metrics=("pass@1",),
    ),
    Experiment(
        name="cost-of-fim",
        title="What infilling costs from left to right (Table 5)",
        about="The same steps on the same files, without infilling and at the paper's rate; bits per byte.",
        steps=tuple(
            step
            for rate in ("0.0", "0.9")
            for step in (
                training(f"fim-{rate}", f"fim.rate={rate}", "train.steps=120"),
                evaluation(
                    f"fim-{rate}/measured",
                    str(RUNS / f"fim-{rate}"),
                    "heldout:psm",
                    *("--per-kind", "16", "--base", BASE),
                    label=f"infilling {rate}",
                ),
            )
        ),
        metrics=("bits per byte",),
    ),
)


def rows_of(experiment: Experiment) -> Iterator[dict[str, Any]]:
    """What an experiment measured: whole tasks, and files read from left to right."""
    for step in experiment.steps:
        path = Path(step.leaves)
        if path.name != "results.json" or not path.is_file():
            continue
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            whole = row["group"] in WHOLE or row["task"] == "santacoder-fim"
            if row["metric"] in experiment.metrics and whole:
                yield {"label": step.label, **{name: row[name] for name in KEPT if name in row}}


def named(row: dict[str, Any], several: bool) -> str:
    """A row as its table names it."""
    task = f"{row['task'].removeprefix('infilling-')} {row['variant']}" if row["group"] != "left to right" else ""
    at = f"at T={row['temperature']:g}" if several else ""
    return " ".join(filter(None, (task, row["group"], row["label"], row["metric"], at)))


def value(row: dict[str, Any], which: str, interval: str) -> str:
    """A figure with its interval."""
    if which not in row:
        return ""
    digits = {"%": 1, "of 100": 1, "bits/byte": 3}.get(row["unit"], 2)
    if interval not in row:
        return f"{row[which]:.{digits}f}"
    low, high = row[interval]
    return f"{row[which]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and lines."""
    several = len({row["temperature"] for row in rows}) > 1
    head = ["", "unit", "questions", "score", *(["base"] if any("before" in row for row in rows) else [])]
    lines = []
    for row in rows:
        line = [named(row, several), row["unit"], f"{row['n']:,}", value(row, "ours", "interval")]
        lines.append([*line, value(row, "before", "before_interval")][: len(head)])
    return head, lines


def plot(experiment: Experiment, rows: list[dict[str, Any]]) -> str:
    """Scores of one task over temperature as lines; the others have their table alone."""
    asked = {(row["task"], row["variant"]) for row in rows}
    temperatures = sorted({row["temperature"] for row in rows})
    if len(asked) == 1 and len(temperatures) > 1:
        lines = []
        for metric in experiment.metrics:
            mine = {row["temperature"]: row["ours"] for row in rows if row["metric"] == metric}
            if mine:
                lines.append(Line(metric, sorted(mine), [mine[t] for t in sorted(mine)]))
        return chart("pass@k", "%", lines, x_name="temperature", zero=True)
    return ""


def write(done: list[Experiment]) -> None:
    """The three files, of every experiment that has results."""
    found = {each.name: list(rows_of(each)) for each in done}
    found = {name: rows for name, rows in found.items() if rows}
    date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    about = {"name": "experiments", "date": date, "commit": commit(), "hardware": hardware(), "model": MODEL}
    write_json(RESULTS / "experiments.json", about | {"experiments": found})
    text = [
        "# The paper's experiments in miniature",
        f"{MODEL}, {hardware()}, {date}; `python scripts/experiments.py --data DIR`; 95 % intervals in brackets.",
    ]
    page = [f"<h1>{escape(text[0][2:])}</h1>", f'<p class="soft">{escape(text[1])}</p>']
    for each in done:
        if each.name not in found:
            continue
        head, lines = table(found[each.name])
        marked = "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))
        shown = "\n".join(f"    midspan {shlex.join(step.words).replace('DATA', 'DIR')}" for step in each.steps)
        text += [f"## {each.title}", each.about, marked, shown]
        cells = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
        heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        page += [
            f"<h2>{escape(each.title)}</h2><p>{escape(each.about)}</p>",
            f"<table><thead><tr>{heads}</tr></thead><tbody>{cells}</tbody></table>",
            plot(each, found[each.name]),
            f"<details><summary>The commands</summary><pre>\n{escape(shown)}</pre></details>",
        ]
    write_text(RESULTS / "experiments.md", "\n\n".join(text) + "\n")
    write_text(RESULTS / "experiments.html", html_page("Experiments", page))


def main() -> None:
    """Take every step that is missing, and write what all of them gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmarks' files")
    parser.add_argument("--only", default="", help=f"of {', '.join(each.name for each in EXPERIMENTS)}")
    asked = parser.parse_args()
    names = {name for name in asked.only.split(",") if name}
    if unknown := names - {each.name for each in EXPERIMENTS}:
        parser.error(f"no experiment is called {min(unknown)!r}")
    data = str(asked.data.resolve())
    os.chdir(ROOT)
    for each in EXPERIMENTS:
        if names and each.name not in names:
            continue
        for step in each.steps:
            if not Path(step.leaves).exists():
                words = [data if word == "DATA" else word for word in step.words]
                print(f"\n$ midspan {shlex.join(words)}", flush=True)
                subprocess.run([sys.executable, "-m", "midspan", *words], check=True)
        write(list(EXPERIMENTS))


if __name__ == "__main__":
    main()
