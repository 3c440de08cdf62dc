"""What decides a corpus, beside its sources, and how a build says how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from rapidfuzz import process

from midspan.corpus.language import check_languages
from midspan.corpus.licence import check_allowed
from midspan.corpus.quality import check_overrides
from midspan.corpus.split import HeldOut
from midspan.errors import InputError

_KINDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    *(("tuple", (list, tuple)), ("bool", (bool,)), ("int", (int,)), ("float", (int, float)), ("Mapping", (dict,))),
)


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """What decides a corpus, beside its sources."""

    languages: tuple[str, ...] = ()
    """Keep only these; empty: all."""
    licences: tuple[str, ...] = ()
    """Kinds (permissive, none, other) and SPDX ids that are kept; empty: any."""
    decontaminate: tuple[str, ...] = ()
    """Files and folders of benchmarks whose items are kept out."""
    held_out: tuple[str, ...] = ()
    """Groups kept out of training, by exact name."""
    held_out_share: float = 0.0
    """Share of all groups kept out of training, by hash of `seed` and name."""
    seed: int = 0
    exclude: tuple[str, ...] = ()
    """Leave out files whose paths match one of these, `*` standing for anything: `tests/*`, `*_pb2.py`."""
    max_bytes: int = 1 << 20
    quality: bool = True
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Thresholds of quality rules by extension, over the built-in ones: {".csv": {"max_lines": 1000}}."""
    vendored: bool = False
    """Keep vendored and generated files."""
    redact: bool = True
    """Replace secrets, e-mail and IP addresses."""
    near_duplicates: bool = True
    """Drop near duplicates; exact ones always go."""

    def __post_init__(self) -> None:
        check_languages(self.languages)
        check_allowed(self.licences)
        check_overrides(self.thresholds)
        if self.max_bytes < 1:
            raise InputError(f"a size cap of {self.max_bytes} bytes keeps nothing; 1048576 is the default")

    def values(self) -> dict[str, Any]:
        """The configuration as a manifest has it."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @staticmethod
    def of(values: Mapping[str, Any]) -> CorpusConfig:
        """The other way; InputError for a name that is no setting, or a value of another kind."""
        kinds = {one.name: str(one.type) for one in fields(CorpusConfig)}
        found: dict[str, Any] = {}
        for name, value in values.items():
            if name not in kinds:
                nearest = process.extractOne(name, sorted(kinds))[0]
                raise InputError(f"no corpus setting is called {name!r}; did you mean {nearest!r}?")
            expected = next(kind for start, kind in _KINDS if kinds[name].startswith(start))
            if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
                raise InputError(f"the corpus setting {name} is {value!r}; {kinds[name]} is expected")
            found[name] = tuple(value) if isinstance(value, list) else value
        return CorpusConfig(**found)

    @property
    def rule(self) -> HeldOut:
        """What is held out."""
        return HeldOut(groups=frozenset(self.held_out), share=self.held_out_share, seed=self.seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a step is: in bytes as listed while files are examined, in files while they are written."""

    step: str
    done: int = 0
    total: int = 0


Report = Callable[[Progress], None]
