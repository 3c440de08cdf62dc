"""llama.cpp's server under the same keystrokes: MIDSPAN_LLAMA_CPP names the folder of its programs.

`/infill` lays the suffix behind the prefix (PSM), and so each keystroke reads the suffix again; the same server is
also asked by token ids in SPM. Its own `/infill` needs sentinels in the GGUF, so PSM is sent by ids as well: the
order and the cache are the same.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from midspan.engine.remote import RemoteEngine
from midspan.errors import WorkError
from midspan.tokenizer import Tokenizer


def program() -> Path | None:
    """llama-server, where it is at hand."""
    folder = os.environ.get("MIDSPAN_LLAMA_CPP")
    path = Path(folder) / "llama-server" if folder else None
    return path if path is not None and path.is_file() else None


@contextmanager
def server(gguf: Path, tokenizer: Tokenizer, threads: int) -> Iterator[RemoteEngine]:
    """The server for the time of a block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(program()), "-m", str(gguf), "--port", str(port), "-t", str(threads), "-c", "8192", "-np", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            url, waited = f"http://127.0.0.1:{port}", time.monotonic()
            while True:
                try:
                    engine = RemoteEngine(url, tokenizer, kind="llama.cpp", max_positions=8192)
                    if engine._get("/health") is not None:
                        break
                except WorkError:
                    if process.poll() is not None or time.monotonic() - waited > 60:
                        raise
                time.sleep(0.1)
            yield engine
        finally:
            process.terminate()
