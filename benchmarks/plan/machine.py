"""This machine: a plan of a real recipe, then a few steps of its real run, each in a process of its own.

The plan sees neither base nor corpus, only the recipe's shape, and times fewer layers than the model has. The run
is `midspan train` on real code; it is ended once enough steps are in its metrics, before it writes its result.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from benchmarks.harness import Bench
from benchmarks.plan.published import add
from midspan.cache import resolve_model
from midspan.model import Llama, ModelConfig
from midspan.model.weights import tokenizer_path, write_hf
from midspan.tokenizer import Tokenizer
from midspan.train.metrics import StepMetrics, read_metrics

TINY = ModelConfig(
    vocab_size=49_152,
    hidden_size=256,
    intermediate_size=704,
    num_layers=6,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    max_positions=4096,
    tied=True,
)
CASES = {
    **{
        f"{method}-{tokens}": ("smollm2-135m", method, tokens)
        for tokens in (512, 1024, 2048)
        for method in ("full", "layers", "lora")
    },
    "tiny-1024": ("tiny", "full", 1024),
}
STEPS = 4
MEMORY, SPEED = 10.0, 15.0
"""Percent that the plan may be off."""


def run(bench: Bench, names: list[str]) -> None:
    """Plan and train every case."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _midspan("corpus", "build", str(_code(folder)), "--out", str(folder / "corpus"))
        tiny = _tiny(folder) if any(case.startswith("tiny") for case in names) else folder
        for case in names:
            base, method, tokens = CASES[case]
            recipe = folder / f"{case}.toml"
            recipe.write_text(_recipe(folder, tiny if base == "tiny" else base, method, tokens))
            plan = json.loads(_midspan("plan", str(recipe), "--gpus", "cpu", "--json"))["plans"][0]
            steps, peak = _train(recipe, folder / case)
            rates = [step.tokens_per_second for step in steps[1:]]
            speed = plan["tokens_per_second"]
            add(bench, f"this machine: {case} speed", speed, statistics.median(rates), "tokens/s", SPEED)
            total = plan["memory_total_bytes"] / 2**20
            add(bench, f"this machine: {case} memory", total, peak / 2**20, "MiB", MEMORY)


def _code(folder: Path) -> Path:
    """Some packages of Python's own library."""
    for package in ("asyncio", "email", "json", "http", "logging", "unittest", "xml", "importlib"):
        shutil.copytree(Path(sysconfig.get_path("stdlib")) / package, folder / "source" / package)
    return folder / "source"


def _tiny(folder: Path) -> str:
    """A small random model with the vocabulary of the embedded default."""
    model = Llama(TINY)
    model.initialise(seed=1)
    tokenizer = Tokenizer.load(tokenizer_path(resolve_model("smollm2-135m")))
    write_hf(folder / "tiny", model, TINY, tokenizer=tokenizer)
    return str(folder / "tiny")


def _recipe(folder: Path, base: Path | str, method: str, tokens: int) -> str:
    rows = 2 if tokens == 512 else 1
    return f"""
        name = "case"
        base = "{base}"
        [data]
        corpus = "{folder / "corpus"}"
        row_tokens = {tokens}
        window_documents = 64
        [train]
        method = "{method}"
        steps = 40
        rows_per_step = {rows}
        rows_per_pass = {rows}
        [optimizer]
        warmup_steps = 5
        """


def _midspan(*arguments: str) -> str:
    command = [sys.executable, "-m", "midspan", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
    return done.stdout


def _train(recipe: Path, out: Path) -> tuple[list[StepMetrics], int]:
    """The first steps of a run, and the most memory that its process had until then."""
    command = [sys.executable, "-m", "midspan", "train", str(recipe), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        peak = 0
        while process.poll() is None:
            steps = read_metrics(out / "metrics.jsonl")
            peak = max(peak, _peak(process.pid))
            if len(steps) >= STEPS:
                process.kill()
                return steps, peak
            time.sleep(0.02)
        assert process.stderr is not None
        raise SystemExit(f"training ended early: {process.stderr.read()}")


def _peak(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


assert os.name == "posix", "memory is read from /proc"
