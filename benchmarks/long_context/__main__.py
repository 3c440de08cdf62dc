"""`python -m benchmarks.long_context [--quick]`: what a larger rotary base buys, on a model that anyone can train.

The paper's section 3.3 in miniature (Figure 4a, Tables 17 and 18): a model trained at 512 tokens from nothing, and
fine-tuned at 2,048 in three ways. Perplexity by position and key retrieval say what each is worth, up to twice the
length of the fine-tuning. A model this small does not learn to look things up from code alone in minutes, so half
of its tokens, in every stage, are files with a planted function and the question about it.

Everything is kept in `--work`, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import tokenizers
from matplotlib import pyplot
from rich.console import Console
from tokenizers import decoders, models, pre_tokenizers, trainers

from benchmarks.harness import commit, hardware
from midspan.corpus import Corpus, CorpusConfig, build
from midspan.engine import Engine
from midspan.evaluate.tasks.context_perplexity import context_perplexity, long_documents
from midspan.evaluate.tasks.key_retrieval import MAX_NEW, Filler, KeyRetrievalConfig, key_retrieval, questions
from midspan.fim import Draws
from midspan.model import RopeScaling
from midspan.model.weights import load_model, write_hf
from midspan.tokenizer import Tokenizer
from midspan.train.lineage import load_lineage, run_lineage

HERE = Path(__file__).resolve().parent
OUT = HERE.parent.parent / "docs" / "results"
PIECES = 2048
HELD_OUT = ("argparse.py", "asyncio", "email", "json", "logging", "unittest")
ENDS = " {answer}\n"
LENGTHS = (256, 512, 1024, 2048, 4096)
console = Console(stderr=True, highlight=False)


def main() -> None:
    """Train what is missing, measure, and write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps of everything: does it run?")
    parser.add_argument("--work", type=Path, default=Path("runs/long-context"), help="folder of corpora and runs")
    arguments = parser.parse_args()
    quick: bool = arguments.quick
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = lay_out(work, num_keys=100 if quick else 20_000)
    stages = load_lineage(HERE / "lineage", work / "runs", overrides(work, quick))
    run_lineage(stages, console=console)
    results = measure(work / "runs", tokenizer, Corpus.open(work / "code"), quick)
    if quick:
        console.print_json(data=results["rows"])
        return
    write(results)


def overrides(work: Path, quick: bool) -> list[str]:
    """Where the recipes find what `lay_out` made."""
    found = [f"short:base={work / 'base'}"]
    for stage in ("short", "theta-10k", "linear", "theta-1m"):
        keys = work / ("keys-512" if stage == "short" else "keys-2048")
        found += [f"{stage}:data.sources.code.corpus={work / 'code'}", f"{stage}:data.sources.keys.corpus={keys}"]
        found += [f"{stage}:train.steps=2"] if quick else []
    return found


def lay_out(work: Path, *, num_keys: int) -> Tokenizer:
    """The corpora and a vocabulary made from them, unless they are there."""
    code = work / "code"
    if not (code / "corpus.json").is_file():
        stdlib = sysconfig.get_path("stdlib")
        build([stdlib], code, CorpusConfig(languages=("python",), held_out=HELD_OUT))
    texts = [document.text for document in Corpus.open(code).documents()]
    base = work / "base"
    if not (base / "tokenizer.json").is_file():
        base.mkdir(exist_ok=True)
        raw = tokenizers.Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        raw.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=PIECES,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        raw.train_from_iterator(texts, trainer)
        raw.save(str(base / "tokenizer.json"))
        (base / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    tokenizer = Tokenizer.load(base)
    for longest in (512, 2048):
        folder = work / f"keys-{longest}"
        if not (folder / "corpus.json").is_file():
            lines = work / f"keys-{longest}.jsonl"
            with lines.open("w") as file:
                for text in key_documents(texts, tokenizer, longest, num_keys * 512 // longest):
                    file.write(json.dumps({"text": text, "path": "key.py"}) + "\n")
            build([str(lines)], folder, CorpusConfig(languages=("python",), near_duplicates=False))
    return tokenizer


def key_documents(texts: Sequence[str], tokenizer: Tokenizer, longest: int, count: int) -> list[str]:
    """Training files that ask for their planted function, of any length up to `longest` tokens."""
    filler = Filler.of(texts, tokenizer)
    found = []
    for number in range(count):
        draws = Draws(longest, number, 0)
        length = 128 + int((longest - 136) * draws.unit() ** 2)  # more short ones: they are learnt first
        config = KeyRetrievalConfig(lengths=(length,), places=(draws.unit(),), num_prompts=1, seed=number)
        question = questions(filler, tokenizer, config)[0]
        found.append(tokenizer.decode(question.ids) + ENDS.format(answer=question.answer))
    return found


def measure(runs: Path, tokenizer: Tokenizer, corpus: Corpus, quick: bool) -> dict[str, Any]:
    """Perplexity by position and key retrieval of every variant."""
    longest = 1024 if quick else LENGTHS[-1]
    held_out = [document.text for document in corpus.documents("held_out")]
    documents = long_documents(held_out, tokenizer, longest, most=2 if quick else 16)
    lengths = tuple(length for length in LENGTHS if length <= longest)
    asked = questions(
        Filler.of(held_out, tokenizer),
        tokenizer,
        KeyRetrievalConfig(lengths=lengths, places=(0.0, 0.2, 0.4), num_prompts=2 if quick else 16, seed=7),
    )
    variants: dict[str, tuple[str, float, RopeScaling | None]] = {
        "not fine-tuned, theta 1e4": ("short", 1e4, None),
        "not fine-tuned, theta 1e6": ("short", 1e6, None),
        "fine-tuned, theta 1e4": ("theta-10k", 1e4, None),
        "fine-tuned, positions / 4": ("linear", 1e4, RopeScaling(kind="linear", factor=4.0)),
        "fine-tuned, theta 1e6": ("theta-1m", 1e6, None),
    }
    rows, curves = [], {}
    for name, (run, theta, scaling) in variants.items():
        with tempfile.TemporaryDirectory() as aside:  # the same weights, said to reach further
            model = load_model(runs / run / "model")
            positions = {"rope_theta": theta, "rope_scaling": scaling, "max_positions": 2 * LENGTHS[-1]}
            write_hf(Path(aside) / "model", model, replace(model.config, **positions), tokenizer=tokenizer)
            engine = Engine.load(Path(aside) / "model", max_batch=8)

        def answers(prompts: list[list[int]], engine: Engine = engine) -> list[str]:
            return [done.text for done in engine.generate(prompts, max_tokens=MAX_NEW)]

        cells = key_retrieval(asked, answers)
        curves[name] = [asdict(bucket) for bucket in context_perplexity(documents, engine.losses)]
        for cell in cells:
            rows.append({"variant": name, **asdict(cell)})
        console.print(name, {length: sum(c.right for c in cells if c.length == length) for length in lengths})
        console.print([round(bucket["perplexity"], 2) for bucket in curves[name]])
    return {
        "name": "long-context",
        "command": "python -m benchmarks.long_context",
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "rows": rows,
        "perplexity": curves,
    }


def write(results: dict[str, Any]) -> None:
    """JSON, Markdown and a plot in docs/results."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "long-context.json").write_text(json.dumps(results, indent=1) + "\n")
    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    for name, buckets in results["perplexity"].items():
        middles = [(bucket["start"] + bucket["end"]) / 2 for bucket in buckets]
        style = "--" if name.startswith("not") else "-"
        axes.plot(middles, [bucket["perplexity"] for bucket in buckets], style, marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for edge, words in ((512, "base's length"), (2048, "fine-tuning's length")):
        axes.axvline(edge, color="0.6", linewidth=1)
        axes.annotate(
            words, (edge, axes.get_ylim()[1]), fontsize=8, color="0.4", va="top", ha="right", rotation=90
        )
    axes.set_xlabel("position in the file (tokens)")
    axes.set_ylabel("perplexity")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(OUT / "long-context.svg", metadata={"Date": None})
    (OUT / "long-context.md").write_text(markdown(results))
    console.print(f"written to {OUT}")


def markdown(results: dict[str, Any]) -> str:
    """The tables for people."""
    rows = results["rows"]
    lengths = sorted({row["length"] for row in rows})
    head = "| | " + " | ".join(f"{length:,}" for length in lengths) + " |\n|---|" + "---|" * len(lengths) + "\n"
    body = ""
    for name in results["perplexity"]:
        cells = []
        for length in lengths:
            found = [row for row in rows if row["variant"] == name and row["length"] == length]
            cells.append(" ".join(f"{100 * row['right'] / row['num_prompts']:.0f}" for row in found))
        body += f"| {name} | " + " | ".join(cells) + " |\n"
    buckets = next(iter(results["perplexity"].values()))
    spans = " | ".join(f"{bucket['start']:,} to {bucket['end']:,}" for bucket in buckets)
    table = f"| | {spans} |\n|---|" + "---|" * len(buckets) + "\n"
    for name, found in results["perplexity"].items():
        table += f"| {name} | " + " | ".join(f"{bucket['perplexity']:.2f}" for bucket in found) + " |\n"
    return TEXT.format(head=head + body, table=table, **{k: results[k] for k in ("command", "commit", "hardware")})


TEXT = """# Long context in miniature

What the paper shows for 7B models at 4,096 and 16,384 tokens (Figure 4, Tables 17 and 18), on a model of 0.9
million weights: trained from nothing at 512 tokens, fine-tuned for a twenty-fifth of its tokens at 2,048 (the
paper: 20 of 500 billion), and asked up to 4,096.
Made by `{command}` at commit {commit} on {hardware}.

## Key retrieval

Right answers in percent, at places 0, 0.2 and 0.4 of the prompt, by its length in tokens:

{head}
## Perplexity by position

Held-out files of 4,096 tokens and more, the same for every variant:

{table}
![Perplexity over positions](long-context.svg)

A model of this size learns to look things up only from files that ask for it: half of the tokens of every
stage are such files, of up to 512 tokens for the base and 2,048 for the fine-tuning. So the scores say how
far each treatment carries a skill, not how good the skill is.
"""


if __name__ == "__main__":
    sys.exit(main())
