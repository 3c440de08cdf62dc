"""Emacs without a screen, with eglot, against the language server."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.tiny import chain_model
from midspan.fim import with_sentinels
from midspan.model.weights import write_hf
from vocabularies import byte_vocabulary

BEFORE, SAID, BEHIND = "def add(a, b):\n    return ", "x*(y+1)", "\n\n\nprint(add(1, 2))\n"


def has_eglot() -> bool:
    emacs = shutil.which("emacs")
    command = ["emacs", "--batch", "--eval", "(progn (package-initialize) (require 'eglot))"]
    return emacs is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.slow
def test_eglot_lists_a_suggestion_and_writes_it(tmp_path: Path) -> None:
    if not has_eglot():
        pytest.skip("emacs with eglot is not installed (apt install emacs-nox elpa-eglot)")
    tokenizer = with_sentinels(byte_vocabulary())
    end = tokenizer.id_of("</s>")
    assert end is not None
    model = chain_model(tokenizer, " " + SAID, end, max_positions=2048)
    write_hf(tmp_path / "ours", model, model.config, tokenizer=tokenizer)
    file = tmp_path / "app.py"
    file.write_text(BEFORE + BEHIND)
    server = [sys.executable, "-m", "midspan", "lsp", str(tmp_path / "ours"), "--decoder", "torch"]
    environment = {**os.environ, "MIDSPAN_CMD": json.dumps(server), "FILE": str(file), "HOME": str(tmp_path)}
    command = ["emacs", "--batch", "--eval", "(package-initialize)", "-l", str(Path(__file__).parent / "drive.el")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment, cwd=tmp_path)
    assert "FACTS" in done.stdout, done.stdout + done.stderr
    facts = json.loads(done.stdout.split("FACTS")[1])
    assert facts["listed"] == 1
    assert facts["after"] == BEFORE + SAID + BEHIND
