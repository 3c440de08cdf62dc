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
    """The server for the time of a block; without its AMX kernels where they end it at its start, as some do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(program()), "-m", str(gguf), "--port", str(port), "-t", str(threads), "-c", "8192", "-np", "1"]
    for more in ([], ["--no-repack"]):
        with subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                engine = _connected(process, port, tokenizer)
                if engine is not None:
                    yield engine
                    return
            finally:
                process.terminate()
    raise WorkError("llama-server ends at its start")


def _connected(process: subprocess.Popen[bytes], port: int, tokenizer: Tokenizer) -> RemoteEngine | None:
    """A client of the server once it answers; None where it has ended or a minute has passed."""
    waited = time.monotonic()
    while process.poll() is None and time.monotonic() - waited < 60:
        try:
            engine = RemoteEngine(f"http://127.0.0.1:{port}", tokenizer, kind="llama.cpp", max_positions=8192)
            if engine.server.get("/health") is not None:
                return engine
        except WorkError:
            pass
        time.sleep(0.1)
    return None
