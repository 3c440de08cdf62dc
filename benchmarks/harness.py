"""How a benchmark is run and kept: contenders alternate, medians are compared, results are JSON.

    bench = Bench("corpus")
    bench.compare("duplicates", unit="MB/s", amount=megabytes, ours=ours, peers={"datasketch": theirs}, goal=20)
    bench.record("padding", unit="%", value=0.4, goal=1.0, better="lower")
    bench.finish()

`ratio` is ours over the best peer in the direction of `better`: 1 is level, more is ahead. A row without peers is
measured against its goal alone.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).resolve().parent / "results"


def hardware() -> str:
    """This machine in words: usable cores, processor, memory."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{len(os.sched_getaffinity(0))} cores {model}, {memory:.0f} GiB"


def commit() -> str:
    """The commit of this checkout, with a plus sign where files differ from it."""
    git = ["git", "-C", str(RESULTS.parent)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.stdout.strip() + ("+" if changed.stdout.strip() else "")


class Bench:
    """One benchmark's rows, printed as they are measured and written at the end."""

    def __init__(self, name: str, *, threads: int = 1, runs: int = 3) -> None:
        self.name, self.threads, self.runs = name, threads, runs
        self.rows: list[dict[str, Any]] = []
        self.console = Console()

    def compare(
        self,
        row: str,
        *,
        unit: str,
        amount: float,
        ours: Callable[[], object],
        peers: Mapping[str, Callable[[], object]] | None = None,
        goal: float | None = None,
        goal_ratio: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> float:
        """Time contenders in turns; a rate is `amount` over seconds, so more is better.

        Args:
            amount: what one call works through, in the unit before the slash.
            ours, peers: calls without arguments, ready to run as often as is asked.
            goal: the rate that ours should reach.
            goal_ratio: how many times the best peer ours should reach.
            clock: `time.process_time` where a rate is for one core and others use the machine.

        Returns:
            Our median rate.
        """

        def rated(call: Callable[[], object]) -> Callable[[], float]:
            def rate() -> float:
                begun = clock()
                call()
                return amount / (clock() - begun)

            return rate

        return self.compare_rates(
            row,
            unit=unit,
            ours=rated(ours),
            peers={name: rated(call) for name, call in (peers or {}).items()},
            goal=goal,
            goal_ratio=goal_ratio,
        )

    def compare_rates(
        self,
        row: str,
        *,
        unit: str,
        ours: Callable[[], float],
        peers: Mapping[str, Callable[[], float]] | None = None,
        goal: float | None = None,
        goal_ratio: float | None = None,
        better: str = "higher",
    ) -> float:
        """Let contenders that measure themselves take turns: each call gives its figure. Returns our median."""
        contenders = {"": ours, **(peers or {})}
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(self.runs):
            for name, call in contenders.items():
                rates[name].append(call())
        medians = {name: statistics.median(found) for name, found in rates.items()}
        mine = medians.pop("")
        self._add(row, unit, mine, medians, goal, goal_ratio, better, self.runs, [min(rates[""]), max(rates[""])])
        return mine

    def record(
        self,
        row: str,
        *,
        unit: str,
        value: float,
        peers: Mapping[str, float] | None = None,
        goal: float | None = None,
        goal_ratio: float | None = None,
        better: str = "higher",
    ) -> None:
        """Keep a figure that was measured elsewhere."""
        self._add(row, unit, value, dict(peers or {}), goal, goal_ratio, better, 1, [value, value])

    def _add(
        self,
        row: str,
        unit: str,
        mine: float,
        peers: dict[str, float],
        goal: float | None,
        goal_ratio: float | None,
        better: str,
        runs: int,
        spread: list[float],
    ) -> None:
        ratio = None
        if peers:
            ratio = mine / max(peers.values()) if better == "higher" else min(peers.values()) / max(mine, 1e-12)
        met = [True]
        if goal is not None:
            met.append(mine >= goal if better == "higher" else mine <= goal)
        if goal_ratio is not None:
            met.append(ratio is not None and ratio >= goal_ratio)
        self.rows.append(
            {"row": row, "unit": unit, "ours": mine, "peers": peers, "ratio": ratio, "goal": goal}
            | {"goal_ratio": goal_ratio, "better": better, "runs": runs, "spread": spread, "met": all(met)}
        )
        beside = ", ".join(f"{name} {value:,.4g}" for name, value in peers.items())
        self.console.print(f"{row}: {mine:,.4g} {unit}" + (f"   ({beside})" if beside else ""), highlight=False)

    def finish(self, *, quick: bool = False, partial: bool = False) -> None:
        """Print the table; write `results/NAME.json` unless this was a quick run, whose figures mean little.

        Args:
            partial: only some steps were run: rows of the others stay in the file. One that another machine made
                stays as it is.
        """
        table = Table("", "unit", "Midspan", "best peer", "ratio", "goal", "met")
        for row in self.rows:
            best = max if row["better"] == "higher" else min
            peer = best(row["peers"].items(), key=lambda item: item[1]) if row["peers"] else None
            goals = [f"{row['goal']:g}"] if row["goal"] is not None else []
            goals += [f"{row['goal_ratio']:g}x"] if row["goal_ratio"] is not None else []
            table.add_row(
                row["row"],
                row["unit"],
                f"{row['ours']:,.4g}",
                f"{peer[0]} {peer[1]:,.4g}" if peer else "",
                f"{row['ratio']:.2f}" if row["ratio"] is not None else "",
                ", ".join(goals),
                ("yes" if row["met"] else "no") if goals else "",
            )
        self.console.print(table)
        if quick:
            return
        results = {
            "name": self.name,
            "commit": commit(),
            "date": datetime.date.today().isoformat(),
            "hardware": hardware(),
            "threads": self.threads,
            "rows": self.rows,
        }
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        if partial and path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            if before["hardware"] != results["hardware"]:
                self.console.print(f"not written: {path} has whole runs of {before['hardware']}")
                return
            now = {row["row"]: row for row in self.rows}
            results["rows"] = [now.pop(row["row"], row) for row in before["rows"]] + list(now.values())
        path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        self.console.print(f"written to {path}")
