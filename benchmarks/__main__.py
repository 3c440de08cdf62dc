"""Which goals are missed, by the results that are kept: `python -m benchmarks` (also `make bench`)."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from benchmarks.harness import RESULTS


def main() -> None:
    """Print every row that misses its goal, with when and where it was measured."""
    table = Table("benchmark", "row", "unit", "Midspan", "best peer", "goal", "measured")
    rows = met = 0
    for path in sorted(RESULTS.glob("*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        for row in results["rows"]:
            goals = [f"{row['goal']:g}"] if row.get("goal") is not None else []
            goals += [f"{row['goal_ratio']:g} x the peer"] if row.get("goal_ratio") is not None else []
            rows += bool(goals)
            met += bool(goals) and row["met"]
            if goals and not row["met"]:
                best = max if row["better"] == "higher" else min
                peer = f"{best(row['peers'].values()):,.4g}" if row["peers"] else ""
                place = f"{results['date']}, {results['hardware']}"
                mine = f"{row['ours']:,.4g}"
                table.add_row(results["name"], row["row"], row["unit"], mine, peer, ", ".join(goals), place)
    console = Console()
    console.print(table)
    console.print(f"{met} of {rows} goals are met; the rows above miss theirs")


if __name__ == "__main__":
    main()
