"""`python -m benchmarks.engine [--quick] [--only STEP,...]`: tokens a second beside other engines, two threads.

llama.cpp's programs are found in MIDSPAN_LLAMA_CPP (a folder), a Python with openvino-genai by MIDSPAN_OPENVINO.
Where either is missing, its column is.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.engine import quality
from benchmarks.engine.models import FORMATS, Subject
from benchmarks.engine.peers import LlamaCpp, OpenVino, Transformers
from benchmarks.harness import Bench
from midspan.engine.fused import FusedDecoder, packed_weights
from midspan.engine.runner import Part, TorchRunner
from midspan.model import KVCache, Llama
from midspan.model.precision import held_in
from midspan.model.quant import Bits

STEPS = ("decode", "batch", "prefill", "start", "quality")
DECODE_GOALS = {("135M", 8): 2.0, ("135M", 4): 2.0, ("1.1B", 8): 1.15, ("1.1B", 4): 1.2}
BITS: tuple[Bits, ...] = (8, 4, 16)
NEW = 96
LENGTHS = "512,2048,8192"


class Peers:
    """Those that are here."""

    def __init__(self, threads: int) -> None:
        tools, python = os.environ.get("MIDSPAN_LLAMA_CPP"), os.environ.get("MIDSPAN_OPENVINO")
        self.tools = Path(tools) if tools else None
        self.llama = LlamaCpp(self.tools, threads) if self.tools else None
        self.openvino = OpenVino(Path(python), threads) if python else None


def main() -> None:
    """Run the steps that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="once, and without the large model: does it run?")
    parser.add_argument("--only", default=",".join(STEPS), help=f"some of {','.join(STEPS)}")
    parser.add_argument("--models", default="135M,1.1B", help="some of 135M,1.1B")
    parser.add_argument("--lengths", default=LENGTHS, help="tokens of the prompts that are read whole")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bench = Bench("engine", threads=arguments.threads, runs=1 if arguments.quick else arguments.runs)
    bench.record("the machine reads", unit="GB/s", value=read_rate())
    peers = Peers(arguments.threads)
    asked = arguments.only.split(",")
    for name in ["135M"] if arguments.quick else arguments.models.split(","):
        subject = Subject(name, peers.tools)
        model = subject.model()
        if "decode" in asked or "batch" in asked:
            decode(bench, subject, model, peers, asked)
        if "prefill" in asked:
            lengths = "512" if arguments.quick else arguments.lengths
            prefill(bench, subject, model, peers, tuple(map(int, lengths.split(","))))
        if "start" in asked and name == "135M":
            start(bench)
        if "quality" in asked and name == "135M":
            quality.run(bench, subject, Path(statistics.__file__).read_text(), num_tokens=2000)
        del model
    whole = arguments.only == ",".join(STEPS) and (arguments.models, arguments.lengths) == ("135M,1.1B", LENGTHS)
    bench.finish(quick=arguments.quick, partial=not whole)


def read_rate() -> float:
    """GB/s of reading a gigabyte once, the best of a few."""
    memory, seconds = torch.ones(1 << 28), []
    for _ in range(5):
        begun = time.perf_counter()
        memory.sum()
        seconds.append(time.perf_counter() - begun)
    return memory.nbytes / min(seconds) / 1e9


def decode(bench: Bench, subject: Subject, model: Llama, peers: Peers, asked: list[str]) -> None:
    """One token at a time, at the start and behind 512 tokens; then several at once."""
    transformers = Transformers(model.config.to_hf(), model.state_dict()) if subject.name == "135M" else None
    for bits in BITS:
        tensors = packed_weights(model, bits)
        read = sum(x.numel() * x.element_size() for name, x in tensors.items() if name != "embedding")
        fused = FusedDecoder(model.config, tensors, bits=bits, threads=bench.threads)

        def ours(depth: int, together: int = 1, fused: FusedDecoder = fused) -> float:
            cache = KVCache(model.config, capacity=depth + NEW + 16, dtype=torch.bfloat16)
            cache.lengths[0] = depth
            begun = time.perf_counter()
            for _ in range(NEW // together):
                fused.step(cache, [Part(0, [7] * together)])
            return NEW / (time.perf_counter() - begun)

        ours(0)
        for depth in (0, 512) if "decode" in asked else ():
            others: dict[str, Callable[[], float]] = {}
            if peers.llama:
                call = partial(peers.llama.rate, subject.gguf(bits), new=NEW, depth=depth)
                others[f"llama.cpp {FORMATS[bits]}"] = call
            if peers.openvino and subject.name == "135M" and depth and bits != 16:  # it reads no BF16
                call = partial(peers.openvino.rate, subject.gguf(bits), prompt=depth, new=NEW)
                others[f"OpenVINO {FORMATS[bits]}"] = call
            if transformers and bits == 16 and not depth:
                others["transformers bfloat16"] = partial(transformers.rate, new=NEW)
            rate = bench.compare_rates(
                f"decode {subject.name} {bits} bit" + (f" behind {depth} tokens" if depth else ""),
                unit="tokens/s",
                ours=partial(ours, depth),
                peers=others,
                goal_ratio=DECODE_GOALS.get((subject.name, bits)) if not depth else None,
            )
            if not depth:
                value = rate * read / 1e9
                bench.record(f"decode {subject.name} {bits} bit: weights read", unit="GB/s", value=value)
        for together in (2, 4, 8, 16) if "batch" in asked else ():
            bench.compare_rates(
                f"decode {subject.name} {bits} bit, {together} tokens a step",
                unit="tokens/s",
                ours=partial(ours, 0, together),
            )
        fused.close()


@torch.inference_mode()
def prefill(bench: Bench, subject: Subject, model: Llama, peers: Peers, lengths: tuple[int, ...]) -> None:
    """Whole prompts, the logits of the last token, read as the engine reads them by default, in 8 bits."""
    transformers = Transformers(model.config.to_hf(), model.state_dict())
    model = model.to(held_in(model.config, "cpu"))  # as an engine has it
    fused = FusedDecoder(model.config, packed_weights(model, 8), bits=8, threads=bench.threads)
    for length in lengths:
        runner = TorchRunner(model, fused)
        runner.cache.reserve(capacity=length)

        def ours(length: int = length, runner: TorchRunner = runner) -> float:
            ids = torch.randint(100, 30_000, (length,)).tolist()
            runner.cache.truncate(0, 0)
            begun = time.perf_counter()
            runner.step([Part(0, ids)])
            return length / (time.perf_counter() - begun)

        others: dict[str, Callable[[], float]] = {}
        if (subject.name, length) != ("1.1B", 8192):
            others["transformers bfloat16"] = partial(transformers.rate, prompt=length)
        for bits in BITS if peers.llama else ():
            others[f"llama.cpp {FORMATS[bits]}"] = partial(peers.llama.rate, subject.gguf(bits), prompt=length)
        if peers.openvino and subject.name == "135M":
            others["OpenVINO Q8_0"] = partial(peers.openvino.rate, subject.gguf(8), prompt=length)
        ours()
        bench.compare_rates(
            f"prefill {subject.name}, {length} tokens", unit="tokens/s", ours=ours, peers=others, goal_ratio=1.3
        )


def start(bench: Bench) -> None:
    """From nothing to the first token, weights in the system's cache; packed before and for the first time."""
    command = [sys.executable, "-m", "midspan", "complete", "smollm2-135m", "def f(", "--max-tokens", "1"]

    def seconds() -> float:
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - begun

    seconds()
    bench.compare_rates("start to first token, 135M", unit="s", ours=seconds, goal=5.0, better="lower")


if __name__ == "__main__":
    main()
