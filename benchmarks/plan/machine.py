"""This machine: a plan of a real recipe, then a few steps of its real run, each in a process of its own.

The plan sees neither base nor corpus, only the recipe's shape, and times fewer layers than the model has. The run
is `midspan train` on real code; it is ended once enough steps are in its metrics, before it writes its result.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
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
from midspan.plan import stage_of
from midspan.plan.cpu import plan_cpu
from midspan.tokenizer import Tokenizer
from midspan.train import load_recipe
from midspan.train.metrics import read_metrics

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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # a run that is under way ends with its benchmark
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _python("midspan", "corpus", "build", str(_code(folder)), "--out", str(folder / "corpus"))
        tiny = _tiny(folder) if any(case.startswith("tiny") for case in names) else folder
        for case in names:
            base, method, tokens = CASES[case]
            recipe = folder / f"{case}.toml"
            recipe.write_text(_recipe(folder, tiny if base == "tiny" else base, method, tokens))
            plan = json.loads(_python("benchmarks.plan.machine", str(recipe)))
            rates, peak = _train(recipe, folder / case)
            speed = plan["tokens_per_second"]
            each = ", ".join(f"{rate:,.0f}" for rate in rates)
            bench.console.print(f"{case}: {speed:,.0f} tokens/s planned, {each} in its steps", highlight=False)
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


def planned(recipe: Path) -> None:
    """Print the plan of a recipe, timed by the work of this process."""
    loaded = load_recipe(recipe)
    plan = plan_cpu(loaded, stage_of(loaded), clock=time.process_time)
    print(json.dumps(plan.to_json()))


def _python(*arguments: str) -> str:
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
    return done.stdout


def _train(recipe: Path, out: Path) -> tuple[list[float], int]:
    """Tokens a second of a run's second step and on, and the most memory that its process had until then."""
    command = [sys.executable, "-m", "midspan", "train", str(recipe), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        peak, worked = 0, []
        try:
            while process.poll() is None:
                steps = read_metrics(out / "metrics.jsonl")
                peak = max(peak, _peak(process.pid))
                if len(steps) > len(worked):
                    worked.append(_work(process.pid))
                if len(steps) >= STEPS:
                    tokens = [step.tokens for step in steps]
                    pairs = zip(itertools.pairwise(tokens), itertools.pairwise(worked), strict=True)
                    return [(t1 - t0) / (w1 - w0) for (t0, t1), (w0, w1) in pairs], peak
                time.sleep(0.02)
        finally:
            process.kill()
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


def _work(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    planned(Path(sys.argv[1]))
