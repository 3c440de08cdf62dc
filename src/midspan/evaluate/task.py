"""What a benchmark is: questions for a model, what is run of its answers, and which scores come of that.

    Task.questions(model) ──► Question ──ask──► Answer ──┬── programs ──sandbox──► verdicts ─┐
                              prompt, stops, row         ├── texts ─────judges───► opinions ─┼─► scores ─► Metrics
                                                         └───────────────────────────────────┘

A question carries the data's own row, so that its answers can be scored again without the model and the data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from midspan.engine.front import Front
from midspan.fim.stops import StopRules
from midspan.sandbox import Program, Verdict

Scores = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A text to go on with."""

    text: str
    most: int | None = None
    """Tokens of its end that are shown; as many as the model has room for if None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hole:
    """Two texts; what stands between them is wanted."""

    prefix: str
    suffix: str
    layout: Literal["psm", "spm"]
    heal: bool = False
    middle: str | None = None
    """The truth, where the model's loss on it is wanted too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chat:
    """One message of a user's, in the model's own chat format."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """How probable is each of these behind the context?"""

    context: str
    choices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ids:
    """Tokens to go on with."""

    ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Tokens to read: how well was each foreseen?"""

    ids: tuple[int, ...]


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists in their place."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


Prompt = Text | Hole | Chat | Choices | Ids | Reading
_KINDS: dict[str, type] = {kind.__name__.lower(): kind for kind in (Text, Hole, Chat, Choices, Ids, Reading)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One problem of a benchmark."""

    id: str
    prompt: Prompt
    row: Mapping[str, Any]
    """What scoring needs of the data."""
    groups: tuple[str, ...] = ("",)
    """What it counts to: "" is the whole task; a language, a difficulty, ..."""
    cluster: str = ""
    """Questions that are alike and are drawn together for intervals; its own id if empty."""
    max_tokens: int = 512
    stops: StopRules = field(default_factory=StopRules)

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        values = {name: getattr(self, name) for name in ("id", "row", "groups", "cluster", "max_tokens")}
        kind = type(self.prompt).__name__.lower()
        return {**values, "stops": asdict(self.stops), "prompt": {"kind": kind, **asdict(self.prompt)}}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Question:
        """What `to_json` gave."""
        prompt, stops = (_tuples(values[name]) for name in ("prompt", "stops"))
        rest = {name: values[name] for name in ("id", "row", "cluster", "max_tokens")}
        made: Prompt = _KINDS[prompt.pop("kind")](**prompt)
        return Question(prompt=made, stops=StopRules(**stops), groups=tuple(values["groups"]), **rest)

    @property
    def shown(self) -> str:
        """The prompt for people."""
        match self.prompt:
            case Text(text=text) | Chat(message=text) | Choices(context=text):
                return text
            case Hole(prefix=prefix, suffix=suffix):
                return f"{prefix}⟨…⟩{suffix}"
        return f"{len(self.prompt.ids):,} tokens"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a model gave for a question, once."""

    question: str
    temperature: float
    copy: int
    text: str
    reason: str
    """Why it ended: see `engine.request.Reason`; `read` where nothing was written."""
    tokens: int
    seconds: float
    """From being asked to the end, beside whatever else was being answered."""
    nats: list[float] | None = None
    """Losses, where they were wanted: of each choice, of each token read, or of a true middle and its end."""

    @property
    def key(self) -> tuple[str, float, int]:
        """What tells it apart within a task."""
        return self.question, self.temperature, self.copy


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One score of a task, over its samples."""

    name: str
    score: str
    """The key of a sample's score."""
    unit: str
    better: Literal["higher", "lower"] = "higher"
    kind: Literal["share", "mean", "ratio", "perplexity", "pass"] = "mean"
    """`share` is of 0 and 1, as percent; `ratio` a sum over the sum of `per`; `perplexity` exp of such a ratio;
    `pass` is pass@k, a row for each k."""
    per: str = ""


PASSED = Metric(name="pass", score="passed", unit="%", kind="pass")
EXACT = Metric(name="exact match", score="exact", unit="%", kind="share")


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers are drawn."""

    temperatures: tuple[float, ...] = (0.0,)
    samples: int = 1
    """Of each question and temperature."""
    top_p: float = 0.95
    """With a temperature above 0."""
    seed: int = 0


GREEDY_ONCE = Decoding()


@dataclass(frozen=True)
class Evidence:
    """What came of an answer outside of it."""

    verdicts: Sequence[Verdict] = ()
    """Of `Task.programs`, in their order."""
    opinions: Mapping[str, float] = field(default_factory=dict)
    """Of the judges in `Task.to_judges`, by their names."""


class Task(ABC):
    """A benchmark with its data and a prompt variant."""

    name: str
    variant: str
    metrics: Sequence[Metric]
    decoding: ClassVar[Decoding] = GREEDY_ONCE
    """Where the user says nothing."""
    languages: Sequence[str] = ()
    """What the sandbox must be able to run."""
    judges: ClassVar[tuple[str, ...]] = ()
    averages: ClassVar[str] = ""
    """The name of the mean over the groups, where it is no mean over questions."""
    about: str = ""

    @abstractmethod
    def questions(self, model: Front) -> list[Question]:
        """All of them, the same each time; the vocabulary may decide where texts are cut."""

    def programs(self, question: Question, answer: Answer) -> list[Program]:
        """What is run of an answer."""
        return []

    def judged(self, question: Question, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """The sandbox's verdicts; a task may know better of a program that ended well."""
        return [*verdicts]

    def to_judges(self, question: Question, answer: Answer) -> dict[str, str]:
        """What each judge is to read."""
        return {}

    @abstractmethod
    def score(self, question: Question, answer: Answer, evidence: Evidence) -> Scores:
        """An answer's scores."""


class Executed(Task):
    """A task whose answers are right where the programs made of them pass."""

    metrics: Sequence[Metric] = (PASSED,)

    def score(self, question: Question, answer: Answer, evidence: Evidence) -> Scores:
        """1 where every program passed."""
        return {"passed": float(all(verdict.status == "passed" for verdict in evidence.verdicts))}
