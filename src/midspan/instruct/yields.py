"""What a stage yielded, beside what the paper's did (section 2.5): 62,000 questions, 52,000 of them different,
about 14,000 with a solution that passes their tests.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

ASKED, DIFFERENT, SOLVED = 62_000, 52_000, 14_000
"""The paper's."""


@dataclass(kw_only=True)
class Yield:
    """Counts of a stage, from what went in to what is kept."""

    stage: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    """By reason."""
    paid: int = 0
    known: int = 0
    """Requests that were sent now, and those whose answers were there."""

    def row(
        self, what: str, count: int, *, of: int | None = None, paper: int | None = None, base: int = 0
    ) -> None:
        """Add a count.

        Args:
            what: is counted.
            count: how many there are.
            of: what it is a share of.
            paper: the paper's count of the same.
            base: what that is a share of.
        """
        share = None if of is None else count / of if of else 0.0
        paper_share = paper / base if paper is not None and base else None
        self.rows.append(
            {"what": what, "count": count, "share": share, "paper": paper, "paper_share": paper_share}
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON has it, reasons by frequency."""
        return {
            "stage": self.stage,
            "rows": self.rows,
            "dropped": dict(self.dropped.most_common()),
            "paid": self.paid,
            "known": self.known,
        }
