"""Ctrl-C and a killed parent, as a shell sees them: no process lives on, and what was made is gone on with."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from midspan.corpus import Corpus
from midspan.rows import RowsConfig, Source, compile_rows
from midspan.tokenizer import Tokenizer

PROGRAM = """
import multiprocessing, os, signal, sys
from pathlib import Path
from midspan.corpus import Corpus
from midspan.rows import RowsConfig, Source, compile_rows
from midspan.tokenizer import Tokenizer

def progress(done):
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    if sys.argv[4] == "interrupt":
        os.killpg(0, signal.SIGINT)  # a terminal sends it to the whole group
    else:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    corpus, tokenizer, out = Corpus.open(sys.argv[1]), Tokenizer.load(sys.argv[2]), Path(sys.argv[3])
    config = RowsConfig(row_tokens=256, window_documents=16)
    compile_rows([Source(corpus=corpus)], tokenizer, config, 10**9, out, workers=2, progress=progress)
"""


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.parametrize("way", ["interrupt", "kill"])
def test_no_process_outlives_its_parent(way: str, functions: Corpus, tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    out = tmp_path / "out" / "rows"
    command = [sys.executable, "-c", PROGRAM, functions.folder, tmp_path / "tokenizer", out, way]
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, start_new_session=True, env=environment
    )
    workers = [int(word) for word in done.stdout.splitlines()[0].split()]
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline, f"{workers} live on"
        time.sleep(0.05)
    if way == "interrupt":
        assert done.stderr.rstrip().endswith("KeyboardInterrupt")
        assert done.stderr.count("Traceback") == 1, "the workers say nothing"
    else:
        assert done.returncode == -signal.SIGKILL
    assert os.listdir(out.parent) == [".rows.partial"]
    made = {path.name: path.stat().st_mtime_ns for path in (out.parent / ".rows.partial").glob("rows-*.idx")}
    assert "rows-0-00000.idx" in made
    assert os.listdir(tmp_path / "temporary") == []
    config, straight = RowsConfig(row_tokens=256, window_documents=16), tmp_path / "straight"
    for folder in (out, straight):
        compile_rows([Source(corpus=functions)], tokenizer, config, 60, folder)
    assert os.listdir(out.parent) == ["rows"], "the remains of a killed process are cleared"
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {p.name: p.read_bytes() for p in straight.iterdir()}
    assert (out / "rows-0-00000.idx").stat().st_mtime_ns == made["rows-0-00000.idx"], "not made again"


def test_a_script_that_its_workers_run_again_ends(tmp_path: Path) -> None:
    """Without `if __name__ == "__main__"` a worker ends as it begins, before it has read what it is given."""
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import functools\n"
        "from midspan.processes import Workers\n"
        "with Workers(functools.partial(functools.partial, print, b'x' * 2_000_000), 2) as workers:\n"
        "    with workers.killed_is_an_error():\n"
        "        workers.submit(1).result()\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "worker processes was killed" in done.stderr
