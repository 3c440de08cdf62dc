"""`python -m benchmarks.train_cpu [--quick] [--peers NAME,...] [--cases full-1024,...]`: training on a CPU.

Tokens/s, peak memory, share of the machine's peak. A peer and Midspan are alive together and take steps in turns,
so that whatever slows the machine slows both; ours is the median over all its turns. Memory is each process's own.
Midspan runs twice: a row at a time, as recipes do, and a step's rows in one pass, which is faster and takes more.
The peak of the machine is torch's bfloat16 product of matrices of 2048 squared, measured between the peers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Bench
from midspan.cache import resolve_model
from midspan.model import ModelConfig
from midspan.model.flops import flops_per_token, matmul_parameters
from midspan.model.weights import load_model, tokenizer_path, write_hf
from midspan.tokenizer import Tokenizer

PEERS = {
    "full": ("fp32", "autocast", "compiled", "trainer", "trl"),
    "lora": ("autocast", "compiled", "trainer", "trl"),
}
NAMES = {
    "fp32": "transformers fp32",
    "autocast": "transformers bf16 autocast",
    "compiled": "transformers bf16 autocast, torch.compile",
    "trainer": "HF Trainer bf16",
    "trl": "TRL SFTTrainer bf16, packing wrapped",
}
TOKENS_PER_STEP = 4096


class Contender:
    """A process that takes a step when it is asked to."""

    def __init__(self, name: str, model: Path, rows: Path, method: str, rows_per_step: int, threads: int) -> None:
        self.name, self.seconds, self.losses, self.peak_gb = name, list[float](), list[float](), 0.0
        command = [sys.executable, "-m", "benchmarks.train_cpu.contenders", name, str(model), str(rows)]
        command += ["--method", method, "--rows-per-step", str(rows_per_step), "--threads", str(threads)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        while self._line().strip() != "ready":
            pass

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with exit code {self.process.wait()}")
        return line

    def step(self) -> None:
        """One optimizer step."""
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        while not (line := self._line()).startswith("{"):
            pass
        found: dict[str, Any] = json.loads(line)
        self.seconds.append(found["seconds"])
        self.losses.append(found["loss"])
        self.peak_gb = found["peak_gb"]

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def rows_of_code(tokenizer: Tokenizer, length: int, count: int) -> np.ndarray:
    """Rows (count, length) of the standard library's source."""
    ids: list[int] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        ids += tokenizer.encode(path.read_text(encoding="utf-8", errors="replace"))
        if len(ids) >= length * count:
            break
    return np.array(ids[: length * count], dtype=np.int64).reshape(count, length)


def gemm_peak() -> float:
    """GFLOP/s of torch's bfloat16 product, the best of a few."""
    a, b = (torch.randn(2048, 2048, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(8):
        begun = time.perf_counter()
        torch.nn.functional.linear(a, b)
        seconds.append(time.perf_counter() - begun)
    return float(2 * 2048**3 / min(seconds) / 1e9)


def flops_done(config: ModelConfig, length: int, method: str) -> float:
    """Of a trained token, forward and backward: causal attention sees half of its document on average."""
    return flops_per_token(config, length / 2, frozen=matmul_parameters(config) if method == "lora" else 0)


def meet(case: str, name: str, folder: Path, *, threads: int, turns: int, tokens: int) -> dict[str, Any]:
    """Midspan both ways and one peer in turns: seconds of steps, memory, and the machine's peak meanwhile."""
    method, length = case.split("-")[0], int(case.split("-")[1])
    per_step, peaks = max(tokens // length, 1), [gemm_peak()]
    rows = folder / f"rows-{length}.npy"
    names = ("midspan", "midspan-whole", name)
    contenders = [Contender(x, folder / "model", rows, method, per_step, threads) for x in names]
    try:
        for turn in range(turns + 1):
            for contender in contenders:
                contender.step()
            if turn == 0:
                first = [contender.losses[0] for contender in contenders]
                if max(first) > 1.03 * min(first):
                    raise RuntimeError(f"{case}: Midspan (twice) and {name} start at losses of {first}")
        peaks.append(gemm_peak())
    finally:
        for contender in contenders:
            contender.close()
    mine, whole, theirs = contenders
    return {
        "tokens": per_step * length,
        "ours": mine.seconds[1:],
        "ours_gb": mine.peak_gb,
        "whole": whole.seconds[1:],
        "whole_gb": whole.peak_gb,
        "theirs": theirs.seconds[1:],
        "theirs_gb": theirs.peak_gb,
        "peaks": peaks,
        "losses": [contender.losses for contender in contenders],
    }


def record(bench: Bench, case: str, met: dict[str, dict[str, Any]], config: ModelConfig) -> None:
    """The rows of one case: speed, memory, share of the peak."""
    method, length = case.split("-")[0], int(case.split("-")[1])
    tokens = next(iter(met.values()))["tokens"]
    rates = {NAMES[name]: tokens / statistics.median(found["theirs"]) for name, found in met.items()}
    fastest = max(met, key=lambda name: rates[NAMES[name]])
    memory = {NAMES[fastest]: met[fastest]["theirs_gb"]}
    peak = statistics.median(x for found in met.values() for x in found["peaks"])
    label = f"{method}, {max(tokens // length, 1)} x {length:,}"
    for way, key in ((label, "ours"), (f"{label} in one pass", "whole")):
        rate = tokens / statistics.median(x for found in met.values() for x in found[key])
        share = 100 * rate * flops_done(config, length, method) / 1e9 / peak
        gigabytes = max(found[f"{key}_gb"] for found in met.values())
        bench.record(way, unit="tokens/s", value=rate, peers=rates, goal_ratio=1.5)
        for name, found in met.items():  # beside each other, whatever the machine did at another time
            ratio = statistics.median(found["theirs"]) / statistics.median(found[key])
            bench.record(f"{way}, beside {NAMES[name]} in turns", unit="times", value=ratio, goal=1.5)
        bench.record(
            f"{way}, memory of the fastest",
            unit="GB",
            value=gigabytes,
            peers=memory,
            goal_ratio=1 / 0.6,
            better="lower",
        )
        bench.record(f"{way}, share of the bf16 GEMM peak", unit="%", value=share, goal=60.0)


def load_config(folder: Path) -> ModelConfig:
    """The shape of the model that is trained."""
    path = folder / "model" / "config.json"
    return ModelConfig.from_hf(json.loads(path.read_text()), str(path))


def main() -> None:
    """Write the model and the rows, then run the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn of a few tokens each: does it run?")
    parser.add_argument("--cases", default="full-1024,lora-1024,full-2048,lora-2048")
    parser.add_argument("--peers", default="", help="some of fp32, autocast, compiled, trainer, trl")
    parser.add_argument("--state", type=Path, help="measurements so far, to go on from: one peer at a time")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    turns, tokens = (1, 256) if arguments.quick else (arguments.turns, TOKENS_PER_STEP)
    cases = ["full-128", "lora-128"] if arguments.quick else arguments.cases.split(",")
    bench = Bench("train_cpu", threads=arguments.threads, runs=turns)
    state: dict[str, Any] = {}
    if arguments.state is not None and arguments.state.is_file():
        state = json.loads(arguments.state.read_text())
    source = resolve_model("smollm2-135m")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, tokenizer = load_model(source, dtype=torch.float32), Tokenizer.load(tokenizer_path(source))
        tensors = {key: tensor.detach() for key, tensor in model.state_dict().items() if key != "lm_head.weight"}
        write_hf(folder / "model", tensors, model.config, tokenizer=tokenizer, dtype=torch.bfloat16)
        for length in {int(case.split("-")[1]) for case in cases}:
            np.save(folder / f"rows-{length}.npy", rows_of_code(tokenizer, length, 8 * max(tokens // length, 1)))
        del model, tensors
        for case in cases:
            known = PEERS[case.split("-")[0]]
            peers = [peer for peer in (arguments.peers.split(",") if arguments.peers else known) if peer in known]
            for peer in peers:
                found = meet(case, peer, folder, threads=arguments.threads, turns=turns, tokens=tokens)
                state.setdefault(case, {})[peer] = found
                bench.console.print(f"{case}, {peer}: {json.dumps(found)}")
                if arguments.state is not None:
                    arguments.state.write_text(json.dumps(state))
        for case, met in state.items():
            record(bench, case, met, load_config(folder))
    bench.finish(quick=arguments.quick)


if __name__ == "__main__":
    main()
