"""A benchmark's server ends with it."""

import os
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from benchmarks.serve.process import Server, tiny_checkpoint
with Server(str(tiny_checkpoint(Path(sys.argv[1]))), "--decoder", "torch", "--quiet") as server:
    print(server._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_benchmark_leaves_no_server(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    # Its standard error would stay open as long as a server that is left has it.
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert done.returncode < 0
    server = Path(f"/proc/{int(done.stdout)}")
    deadline = time.monotonic() + 20
    while server.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not server.exists()
