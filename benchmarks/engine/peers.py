"""Other engines, each asked for one figure."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

OPENVINO = """
import random, sys, time
import openvino_genai as genai
import openvino, numpy as np
path, threads, prompt, new = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
pipe = genai.LLMPipeline(path, "CPU", INFERENCE_NUM_THREADS=threads)
def run():
    ids = np.random.randint(100, 40000, (1, prompt))
    inputs = genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
    config = genai.GenerationConfig(max_new_tokens=new, min_new_tokens=new, do_sample=False, ignore_eos=True)
    return pipe.generate(inputs, config).perf_metrics
run()
metrics = run()
print(1000 / metrics.get_tpot().mean if new > 1 else 1000 * prompt / metrics.get_ttft().mean)
"""


class LlamaCpp:
    """`llama-bench` of a folder with llama.cpp's programs."""

    def __init__(self, tools: Path, threads: int) -> None:
        self.tools, self.threads = tools, threads

    def rate(self, path: Path, *, prompt: int = 0, new: int = 0, depth: int = 0) -> float:
        """Tokens a second of reading `prompt` tokens, or of writing `new` ones behind `depth`."""
        command = [
            self.tools / "llama-bench",
            "-m",
            path,
            "-t",
            self.threads,
            "-p",
            prompt,
            "-n",
            new,
            "-d",
            depth,
        ]
        command += ["-r", 1, "-o", "json", "-fa", "auto"]
        done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
        if done.returncode:  # on some processors its kernels for tiles end the program
            command += ["--repack", 0]
            done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
        return float(json.loads(done.stdout)[0]["avg_ts"])


class OpenVino:
    """OpenVINO GenAI in an environment of its own, on a GGUF file."""

    def __init__(self, python: Path, threads: int) -> None:
        self.python, self.threads = python, threads

    def rate(self, path: Path, *, prompt: int, new: int = 1) -> float:
        """As `LlamaCpp.rate`."""
        command = [self.python, "-c", OPENVINO, path, self.threads, prompt, new]
        done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
        return float(done.stdout.split()[-1])


class Transformers:
    """transformers in this process, with our weights."""

    def __init__(self, config: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
        import transformers

        self.model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).to(torch.bfloat16).eval()
        self.model.load_state_dict(state, assign=True)

    @torch.inference_mode()
    def rate(self, *, prompt: int = 0, new: int = 0) -> float:
        """As `LlamaCpp.rate`."""
        ids = torch.randint(100, 30_000, (1, max(prompt, 1)))
        begun = time.perf_counter()
        if new:
            self.model.generate(ids, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0)
            return new / (time.perf_counter() - begun)
        self.model(ids, logits_to_keep=1)
        return prompt / (time.perf_counter() - begun)
