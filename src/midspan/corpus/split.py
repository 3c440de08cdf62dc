"""Which groups are held out for evaluation: a pure function of the group's name.

A repository's files quote each other, so a split by file leaks. The unit is the group: a repository, or a
first-level entry of a plain folder. A group is held out because it was named, or because the hash of its name
and a seed falls into the asked share; neither the order of files nor the other groups play a part, so a group
keeps its split when sources are added, and a larger share only adds groups.
Groups of one name in several sources go the same way: they are most likely copies of one package.
"""

from collections.abc import Collection
from dataclasses import dataclass

import xxhash
from rapidfuzz import process

from midspan.corpus.document import HELD_OUT, TRAIN
from midspan.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """What is held out: groups by exact name, and a share of all groups by hash of (seed, name)."""

    groups: frozenset[str] = frozenset()
    share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise InputError(f"held-out share {self.share} is not in [0, 1); 0.05 holds out one group in twenty")

    def __bool__(self) -> bool:
        """Whether anything is to be held out."""
        return bool(self.groups) or self.share > 0

    def split(self, group: str) -> str:
        """The split of a group, TRAIN or HELD_OUT."""
        if group in self.groups:
            return HELD_OUT
        draw = xxhash.xxh3_64_intdigest(f"{self.seed}\0{group}".encode()) / 2**64
        return HELD_OUT if draw < self.share else TRAIN

    def check(self, groups: Collection[str]) -> None:
        """InputError if a named group is not in `groups` (the nearest is named), or a split gets no group."""
        for name in sorted(self.groups - set(groups)):
            nearest = process.extractOne(name, sorted(groups))[0]
            raise InputError(f"no group is called {name!r}, so it cannot be held out; the nearest is {nearest!r}")
        splits = {self.split(group) for group in groups}
        if self and HELD_OUT not in splits:
            raise InputError(
                f"a held-out share of {self.share} with seed {self.seed} takes none of the {len(groups)} "
                f"groups; raise the share, or name a group to hold out, for example {min(groups)!r}"
            )
        if TRAIN not in splits:
            raise InputError(
                f"every group is held out ({len(groups)}), so nothing is left to train on; hold out fewer"
            )
