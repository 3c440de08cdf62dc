"""A server in a process of its own, and a checkpoint so small that only the way to it costs anything."""

from __future__ import annotations

import ctypes
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import httpx
import tokenizers

from midspan.fim import with_sentinels
from midspan.model import Llama, ModelConfig
from midspan.model.weights import write_hf
from midspan.tokenizer import Tokenizer

_LIBC = ctypes.CDLL(None)
_SET_PARENT_DEATH_SIGNAL = 1


def _end_with_parent() -> None:
    """A benchmark that is killed, even by a signal that it cannot catch, leaves no server behind."""
    _LIBC.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


class Server:
    """`midspan serve` on a free port, ready when the block begins; it ends with the thread that started it."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "midspan", "serve", *arguments, "--port", "0"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_end_with_parent)
        self.url = ""

    def __enter__(self) -> Server:
        assert self._process.stderr is not None
        said = ""
        while not (found := re.search(r"http://[0-9.]+:\d+", said)):
            line = self._process.stderr.readline()
            if not line:
                raise RuntimeError(f"the server did not start: {said}")
            said += line
        self.url = found[0]
        while True:
            try:
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return self
            except httpx.HTTPError:
                pass
            time.sleep(0.01)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()

    def memory(self) -> int:
        """Bytes that the process holds."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self._process.pid}/status").read_text())
        assert found is not None
        return 1024 * int(found[1])

    def metric(self, name: str) -> float:
        """One of its counters."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", httpx.get(f"{self.url}/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0


def tiny_checkpoint(folder: Path) -> Path:
    """A random model of two small layers with a byte-level vocabulary and sentinels."""
    target = folder / "tiny"
    if target.exists():
        return target
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator([json.dumps(sys.version)] * 4, vocab_size=300, special_tokens=["<s>", "</s>"])
    trained.save(str(folder / "tokenizer.json"))
    tokenizer = with_sentinels(Tokenizer.load(folder / "tokenizer.json"))
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2}
    config = ModelConfig(vocab_size=tokenizer.vocab_size, head_dim=8, max_positions=2048, tied=False, **shape)
    model = Llama(config)
    model.initialise(0, std=0.3)
    write_hf(target, model, config, tokenizer=tokenizer)
    return target
