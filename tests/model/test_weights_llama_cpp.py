"""llama.cpp itself on files that we wrote: it loads them, writes our engine's tokens and knows the sentinels.

It is looked for in MIDSPAN_LLAMA_CPP (the folder of its programs) and on the path; its C library, for the K
types, beside the programs.
"""

import ctypes
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from midspan.engine import Engine
from midspan.fim import FimFormat, with_sentinels
from midspan.model import Llama
from midspan.model.weights import load_model, write_gguf
from midspan.model.weights.convert import convert
from midspan.model.weights.gguf_quantise import quantise
from midspan.tokenizer import Tokenizer
from midspan.train.base import prepare_base
from vocabularies import small_vocabulary, smollm2_path

from .shapes import SHAPES, random_state

pytestmark = pytest.mark.slow
Kind = gguf.GGMLQuantizationType
TEXTS = (
    "def median(values):\n    ordered = sorted(values)\n",
    "  x = 12345 + y\r\n\t# naïve café 日本語 🙂\n\n\n    it's 've",
    "class Stack:\n    def __init__(self) -> None:\n        self.items = []\n",
)


@pytest.fixture(scope="module")
def programs() -> Path:
    named = os.environ.get("MIDSPAN_LLAMA_CPP")
    found = Path(named) / "llama-server" if named else Path(shutil.which("llama-server") or "")
    if not found.is_file():
        pytest.skip("no llama.cpp: set MIDSPAN_LLAMA_CPP to the folder of llama-server")
    return found.parent


class Server:
    """A running llama-server."""

    def __init__(self, address: str, log: Path) -> None:
        self.address, self.log = address, log

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def greedy(self, prompt: list[int], number: int) -> list[int]:
        body = {"prompt": prompt, "n_predict": number, "temperature": 0, "return_tokens": True, "ignore_eos": True}
        return self.ask("/completion", body | {"cache_prompt": False, "samplers": ["top_k"], "top_k": 1})["tokens"]

    def tokenize(self, text: str) -> list[int]:
        return self.ask("/tokenize", {"content": text, "add_special": False, "parse_special": False})["tokens"]

    def special(self, role: str) -> int:
        """What the log says of a token: `FIM PRE token = 49152 '<PRE>'`."""
        line = next(line for line in self.log.read_text(errors="replace").splitlines() if f"{role} token" in line)
        return int(line.split("=")[1].split()[0])


@contextmanager
def serving(programs: Path, model: Path, *options: str) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = model.with_suffix(".log")
    command = [
        programs / "llama-server",
        "-m",
        model,
        "--host",
        "127.0.0.1",
        "--port",
        port,
        "-t",
        "1",
        "-c",
        "256",
    ]
    command += ["-np", "1", "--no-warmup", "-fa", "off", "-ctk", "f32", "-ctv", "f32", "-lv", "4", *options]
    with log.open("wb") as out:
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=out)
    try:
        server = Server(f"http://127.0.0.1:{port}", log)
        for _ in range(600):
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            try:
                server.ask("/health")
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait()


@torch.no_grad()
def check_greedy(server: Server, model: Llama, prompt: list[int], number: int, slack: float) -> None:
    """Each token of theirs is our best after the same tokens, or within `slack` of it: arithmetic differs."""
    theirs = server.greedy(prompt, number)
    logits = model(torch.tensor([prompt + theirs]))[0, len(prompt) - 1 : -1]
    behind = logits.max(dim=-1).values - logits.gather(-1, torch.tensor(theirs)[:, None])[:, 0]
    assert len(theirs) == number
    assert float(behind.max()) <= slack, behind


@pytest.mark.parametrize(
    "name",
    ["grouped-query", "tied", "qwen2", "mistral", "attention bias", "own head size", "linear", "llama3", "yarn"],
)
def test_every_shape_writes_our_tokens(name: str, programs: Path, tmp_path: Path) -> None:
    """In F32, where only the order of sums differs: the very same greedy tokens as our engine."""
    tokenizer = with_sentinels(small_vocabulary(bos="<s>"))
    config = replace(SHAPES[name].config, vocab_size=tokenizer.vocab_size)
    path = tmp_path / "model.gguf"
    write_gguf(path, random_state(config).items(), config, tokenizer, kind="f32")
    engine = Engine.load(path, dtype=torch.float32)
    with serving(programs, path, "-c", "128") as server:
        for text in TEXTS:
            prompt = [tokenizer.bos_id or 0, *tokenizer.encode(text)]
            assert server.tokenize(text) == prompt[1:]
            ours = engine.generate([prompt], max_tokens=24)[0].ids
            assert server.greedy(prompt, 24) == ours


def test_smollm2_with_sentinels(programs: Path, tmp_path: Path) -> None:
    """The embedded default with its four new rows, as a run leaves it, in five storage types."""
    model, tokenizer = prepare_base(str(smollm2_path()), torch.float32)
    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    for kind, slack in (("f32", 0.02), ("f16", 0.05), ("q8_0", 0.5), ("q4_0", 1.0), ("q4_k", 1.0)):
        path = tmp_path / f"{kind}.gguf"
        write_gguf(path, model.named_parameters(), model.config, tokenizer, kind=kind)
        stored = load_model(path)
        engine = Engine(stored, tokenizer)
        with serving(programs, path) as server:
            roles = {
                "FIM PRE": fim.prefix_id,
                "FIM SUF": fim.suffix_id,
                "FIM MID": fim.middle_id,
                "EOT": fim.eot_id,
            }
            assert {role: server.special(role) for role in roles} == roles
            for text in TEXTS:
                ids = tokenizer.encode(text)
                assert server.tokenize(text) == ids
                check_greedy(server, stored, ids, 24, slack)
                if kind in ("f32", "f16"):
                    assert server.greedy(ids, 24) == engine.generate([ids], max_tokens=24)[0].ids
            answer = server.ask(
                "/infill", {"input_prefix": "def add(a, b):\n    ", "input_suffix": "\n", "n_predict": 4}
            )
            assert isinstance(answer["content"], str)
        path.unlink()


@pytest.mark.parametrize("name", ["llama-spm", "llama-bpe", "qwen2", "deepseek-coder", "starcoder"])
def test_vocabularies_give_llama_cpps_ids(
    name: str, programs: Path, vocabulary: Callable[[str], Tokenizer], tmp_path: Path
) -> None:
    tokenizer = with_sentinels(vocabulary(name))
    config = replace(SHAPES["multi-query"].config, vocab_size=tokenizer.vocab_size + 8, hidden_size=32)
    path = tmp_path / "model.gguf"
    write_gguf(path, random_state(config).items(), config, tokenizer)
    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    with serving(programs, path) as server:
        assert server.special("FIM PRE") == fim.prefix_id
        assert server.special("FIM SUF") == fim.suffix_id
        for text in TEXTS:
            assert server.tokenize(text) == tokenizer.encode(text)


def test_a_run_after_convert(programs: Path, tmp_path: Path) -> None:
    """Through the command's own path, from the file that `models pull` fetches."""
    convert(smollm2_path(), tmp_path / "a.gguf", "gguf", kind="q8_0")
    tokenizer = Tokenizer.load(tmp_path / "a.gguf")
    with serving(programs, tmp_path / "a.gguf") as server:
        check_greedy(server, load_model(tmp_path / "a.gguf"), tokenizer.encode(TEXTS[0]), 24, 0.5)


@pytest.mark.parametrize(
    "kind", [Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.Q8_0, Kind.Q4_0], ids=lambda kind: kind.name
)
def test_as_little_is_lost_as_by_ggmls_own_quantisation(kind: Kind, programs: Path) -> None:
    library = next(iter(sorted(programs.glob("libggml-base.so*"))), None)
    if library is None:
        pytest.skip(f"{programs} holds no libggml-base.so")
    ggml = ctypes.CDLL(str(library))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        *[ctypes.c_void_p] * 2,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    generator = np.random.default_rng(0)
    for values in (generator.normal(size=(64, 1024)), generator.laplace(size=(64, 1024)) * 0.02):
        rows = values.astype(np.float32)
        ours = quantise(rows, kind)
        theirs = np.zeros_like(ours)
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (rows, theirs)]
        assert ggml.ggml_quantize_chunk(int(kind), *pointers, 0, *rows.shape, None) == ours.nbytes
        errors = [float(np.square(gguf.quants.dequantize(q, kind) - rows).mean() ** 0.5) for q in (ours, theirs)]
        assert errors[0] <= 1.01 * errors[1]
