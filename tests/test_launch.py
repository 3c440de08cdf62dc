"""The launch files of the documentation: what they ask Slurm for, and what they start."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = ROOT / "recipes" / "launch"


@pytest.mark.parametrize("name", ["slurm.sh", "torchrun.sh"])
def test_a_shell_reads_them_and_the_documentation_names_them(name: str) -> None:
    subprocess.run(["bash", "-n", LAUNCH / name], check=True)
    assert os.access(LAUNCH / name, os.X_OK)
    assert f"recipes/launch/{name}" in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def test_slurm_is_asked_for_64_ranks_with_a_gpu_each() -> None:
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", (LAUNCH / "slurm.sh").read_text(), re.MULTILINE))
    assert int(asked["nodes"]) * int(asked["ntasks-per-node"]) == 64
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    assert asked["signal"] == "TERM@600"


def _stand_in(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(0o755)


def test_slurms_script_starts_every_rank_and_queues_itself_until_the_model_is_there(tmp_path: Path) -> None:
    """With stand-ins for Slurm's programs and for ours, which write down how they were called."""
    tools, run = tmp_path / "tools", tmp_path / "run"
    tools.mkdir()
    _stand_in(
        tools,
        "scontrol",
        f'if [ "$1" = show ]; then echo host1; echo host2; else echo "$@" >> {tmp_path}/queue; fi',
    )
    _stand_in(
        tools,
        "srun",
        "shift; export SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=2; "
        'for n in 0 1; do SLURM_PROCID=$n SLURM_LOCALID=$n "$@"; done',
    )
    ours = f'echo "$RANK $WORLD_SIZE $LOCAL_RANK $MASTER_ADDR $@" >> {tmp_path}/ranks'
    _stand_in(tools, "midspan", f"{ours}; mkdir -p {run}/checkpoints/step-$(date +%s%N)")
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "x",
    }
    command = ["bash", LAUNCH / "slurm.sh", "recipe.toml", run, "--set", "train.steps=3"]
    subprocess.run(command, check=True, env=environment)
    started = f"train recipe.toml --out {run} --set train.steps=3"
    assert (tmp_path / "ranks").read_text().splitlines() == [f"{n} 2 {n} host1 {started}" for n in (0, 1)]
    assert (tmp_path / "queue").read_text() == "requeue 7\n"
    _stand_in(tools, "midspan", f"{ours}; exit 2")
    assert subprocess.run(command, check=False, env=environment).returncode == 1, "it brought the run no further"
    assert "--resume" in shlex.split((tmp_path / "ranks").read_text().splitlines()[-1])
    (run / "model").mkdir(parents=True)
    subprocess.run(command, check=True, env=environment)
    assert (tmp_path / "queue").read_text() == "requeue 7\n", "neither was queued again"
