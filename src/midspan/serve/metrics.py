"""What is counted, in Prometheus' words: how soon text comes, how much was cached, what was accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from midspan.engine import Completion

if TYPE_CHECKING:
    from midspan.serve.desk import Timing, Work

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "HTTP requests", "route", "status")
        self.seconds = self._histogram("request_seconds", "Until the last byte was sent", _SECONDS, "route")
        self.first = self._histogram("first_text_seconds", "Until the first piece of a text", _SECONDS, "kind")
        self.evaluated = self._histogram(
            "prompt_evaluated_tokens", "Tokens of a prompt that had to be read", _TOKENS, "kind"
        )
        self.prompt = self._counter("prompt_tokens", "Tokens of prompts", "kind")
        self.cached = self._counter("prompt_cached_tokens", "Tokens of prompts that were cached", "kind")
        self.written = self._counter("written_tokens", "Tokens of texts", "kind")
        self.drafted = self._counter("drafted_tokens", "Tokens that were guessed ahead", "kind")
        self.agreed = self._counter("drafted_accepted_tokens", "Guesses that turned out right", "kind")
        self.cancelled = self._counter("cancelled", "Texts that nobody waited for to the end")
        self.refused = self._counter("refused", "Requests that were turned away", "why")
        self.suggestions = self._counter("suggestions", "What became of suggestions, as editors tell", "event")
        self.running = Gauge("midspan_running", "Texts under way or waiting", registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"midspan_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"midspan_{name}", text, labels, buckets=buckets, registry=self.registry)

    def worked(self, work: Work, completions: Sequence[Completion], timing: Timing) -> None:
        """Texts have ended."""
        if timing.first is not None:
            self.first.labels(work.kind).observe(timing.first)
        for completion in completions:
            usage = completion.usage
            self.prompt.labels(work.kind).inc(usage.prompt)
            self.cached.labels(work.kind).inc(usage.cached)
            self.evaluated.labels(work.kind).observe(usage.prompt - usage.cached)
            self.written.labels(work.kind).inc(len(completion.ids))
            self.drafted.labels(work.kind).inc(usage.drafted)
            self.agreed.labels(work.kind).inc(usage.accepted)

    def page(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)
