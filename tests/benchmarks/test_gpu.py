"""The GPU's benchmark in its small form, without its peers: so it starts where Midspan does."""

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BLOCK = """
import sys
ABSENT = {"transformers", "peft"}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in ABSENT else find(name, package)
from benchmarks.gpu.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_small_form_finds_no_wrong_answer_and_times_both_methods(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"}
    command = [sys.executable, "-c", BLOCK, "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())
    assert len(results["checks"]) > 15
    assert all(check["passed"] for check in results["checks"])
    assert [row["row"] for row in results["rows"]] == ["tiny full 1 x 256 tokens", "tiny lora 2 x 256 tokens"]
    assert all(row["ours"]["tokens_per_second"] > 0 for row in results["rows"])
