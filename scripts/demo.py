"""The whole path once: a base → a corpus → training → before and after → three real infills.

    make demo                    a base that cannot infill learns it: the standard library and what is installed
    make demo CODE="DIR ..."     the model that comes with Midspan learns your own code, of which some is held out

Every step is a command of Midspan, printed before it runs. What is done is not done again, so the demo can be
interrupted at any time and started again to go on.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from rich.console import Console
from rich.text import Text

from midspan.cache import DEFAULT
from midspan.evaluate.metrics import edit_similarity
from midspan.evaluate.pages.heldout import examples
from midspan.files import atomic_folder
from midspan.plan.measure import steps_within
from midspan.train import load_recipe, read_recipe

REPOSITORY = Path(__file__).resolve().parent.parent
HELD_OUT = "argparse.py,asyncio,email,json,logging,rich,typer,unittest"
LEFT_OUT = (
    "test/*,idlelib/*,lib2to3/*,torch/*,torchgen/*,functorch/*,sympy/*,mpmath/*,numpy/*,numba/*,scipy/*,networkx/*"
)
"""Tests, and what is numerical: nine tenths of what is installed, and not the kind of code that is held out."""
ALMOST_ALL = 0.8
"""Of a folder's Python in one of its own folders: then that is where packages lie."""
SHARE = 0.1
"""Of a user's own packages or folders, held out to measure on."""
KNOWN_ROWS = 10
"""The rate of the sentinels' rows, times the others', where a model knows them already."""
MINUTES = 10.0
"""Of training as timed at the start; the whole demo takes four more."""
STEPS = (50, 1200)
"""The fewest that show something, and the most."""
console = Console(highlight=False)


def midspan(*arguments: str | Path) -> None:
    """Run a command of Midspan, showing it; end the demo with its exit code if it fails."""
    words = [str(argument) for argument in arguments]
    console.print(f"\n[bold]$ midspan {shlex.join(words)}[/bold]")
    code = subprocess.run([sys.executable, "-m", "midspan", *words], check=False).returncode
    if code:
        console.print(f"\nThe demo stopped at this step; run it again to go on (exit code {code}).")
        sys.exit(code)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(
        description="Midspan's main job, end to end, in minutes on two cores.",
        epilog="Example: python scripts/demo.py ~/src/service ~/src/library --out runs/ours",
    )
    parser.add_argument("code", type=Path, nargs="*", help="folders or repositories of your own")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="the run's folder (runs/demo)")
    parser.add_argument("--held-out-share", type=float, default=SHARE, help=f"of your own packages ({SHARE})")
    asked = parser.parse_args()
    run: Path = asked.out
    corpus = run.with_name(f"{run.name}-corpus")
    begun = time.monotonic()

    paths = sysconfig.get_paths()
    base, sources = "smollm2-135m", [Path(paths["stdlib"]), Path(paths["purelib"])]
    options = ["--languages", "python", "--held-out", HELD_OUT, "--exclude", LEFT_OUT, "--workers", "2"]
    if asked.code:
        aside = run.with_name(f"{run.name}-code")
        folders = [plain_folder(folder, aside / str(number)) for number, folder in enumerate(asked.code)]
        base, sources, share = DEFAULT, [folder_of_packages(folder) for folder in folders], asked.held_out_share
        names = held_out_of(sources, share)
        options = ["--held-out", names] if names else ["--held-out-share", str(share)]
        options += ["--workers", "2"]
    midspan("models", "pull", base)
    midspan("corpus", "build", *sources, *options, "--out", corpus)
    recipe = REPOSITORY / "recipes" / "smol" / "code.toml"
    changed = [f"base={base}", f"data.corpus={corpus}"]
    if asked.code:
        changed.append(f"optimizer.rows_lr_scale={KNOWN_ROWS}")
    changed.append(f"train.steps={steps_of(run, recipe, changed)}")
    settings = [word for setting in changed for word in ("--set", setting)]
    midspan("train", recipe, *settings, "--out", run, *(["--resume"] if run.exists() else []))
    midspan("eval", run, "--per-kind", "16")

    show_infills(run)
    minutes = (time.monotonic() - begun) / 60
    console.print(f"\nDone in {minutes:.1f} minutes. The report is {run / 'report.html'}. To try next:\n")
    for line in (
        f"midspan infill {run} YOUR_FILE.py:LINE:COLUMN",
        f"midspan complete {run} 'def fibonacci(n):'",
        "midspan corpus build path/to/your/repository --held-out-share 0.05 --out my-corpus",
        f"midspan train {recipe} --set data.corpus=my-corpus --set train.steps=1000 --out runs/mine",
    ):
        console.print(f"  {line}", style="cyan")


def plain_folder(folder: Path, aside: Path) -> Path:
    """A repository's files at HEAD: by itself it is one group, of which nothing can be held out."""
    if not (folder / ".git").exists():
        return folder
    files = aside / folder.resolve().name
    if not files.exists():
        with atomic_folder(files) as made, TemporaryFile() as archive:
            if subprocess.run(["git", "-C", folder, "archive", "HEAD"], stdout=archive, check=False).returncode:
                sys.exit(f"{folder} has no commit that git can read; commit its files, or name a folder in it")
            archive.seek(0)
            subprocess.run(["tar", "-x", "-C", made], stdin=archive, check=True)
    return files


def held_out_of(folders: Sequence[Path], share: float) -> str:
    """Names of packages, folders and files with about this share of the Python in these, by a hash; or nothing."""
    sizes: Counter[str] = Counter()
    for folder in folders:
        for path in folder.rglob("*.py"):
            sizes[path.relative_to(folder).parts[0]] += path.stat().st_size
    wanted, taken, chosen = share * sizes.total(), 0, []
    for name in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if taken < wanted and taken + sizes[name] <= max(2 * wanted, sizes.total() / 3):
            chosen.append(name)
            taken += sizes[name]
    return ",".join(chosen or sorted(sizes, key=lambda name: sizes[name])[:1])


def folder_of_packages(folder: Path) -> Path:
    """Where packages lie side by side: an only package is gone into, or all of it might be held out."""
    sizes = {folder: 0}
    for path in folder.rglob("*.py"):
        under = path.relative_to(folder).parts
        place = folder / under[0] if len(under) > 1 else folder
        sizes[place] = sizes.get(place, 0) + path.stat().st_size
    largest = max(sizes, key=lambda place: sizes[place])
    if largest == folder or sizes[largest] < ALMOST_ALL * sum(sizes.values()):
        return folder
    return folder_of_packages(largest)


def steps_of(run: Path, recipe: Path, changed: Sequence[str]) -> int:
    """The steps of a run that was begun; else as many as fit the time on this machine, which is tried."""
    if (run / "recipe.json").is_file():
        return int(read_recipe(run)["train"]["steps"])
    with console.status(f"timing a few steps: how many fit {MINUTES:.0f} minutes here?"):
        fitting = steps_within(load_recipe(recipe, changed), MINUTES)
    fewest, most = STEPS
    steps = min(max(fitting, fewest), most)
    console.print(f"\n{fitting:,} steps fit {MINUTES:.0f} minutes of training here; {steps:,} are taken")
    return steps


def show_infills(run: Path) -> None:
    """Three infills of held-out files as the trained model wrote them, the nearest to the truth first."""
    found = examples(run, "both")
    found.sort(key=lambda e: (e["after"] != e["truth"], -edit_similarity(e["after"], e["truth"])))
    console.print("\n[bold]Three infills in files that the model never saw[/bold]")
    in_three_files = {example["path"]: example for example in reversed(found)}  # the best one of each file
    for example in sorted(in_three_files.values(), key=found.index)[:3]:
        console.print(f"\n{example['path']}  ({example['kind']}, {example['layout']})", style="dim")
        text = Text()
        text.append("\n".join(example["prefix"].split("\n")[-4:]), style="dim")
        text.append(
            example["after"], style="bold green" if example["after"] == example["truth"] else "bold yellow"
        )
        text.append("\n".join(example["suffix"].split("\n")[:4]), style="dim")
        console.print(text)
        if example["after"] != example["truth"]:
            console.print(f"the file has: {example['truth']!r}", style="dim")


if __name__ == "__main__":
    main()
