"""What fewer bits cost: log-probabilities of real code against those of float32 arithmetic on bfloat16 weights."""

from __future__ import annotations

import torch

from benchmarks.engine.models import Subject
from benchmarks.harness import Bench
from midspan.engine.fused import FusedDecoder, packed_weights
from midspan.engine.runner import Part
from midspan.model import KVCache
from midspan.tokenizer import Tokenizer


@torch.inference_mode()
def run(bench: Bench, subject: Subject, text: str, *, num_tokens: int) -> None:
    """A row for the largest change, and one for the change of the mean."""
    ids = Tokenizer.load(subject.source).encode(text)[:num_tokens]
    model = subject.model()
    truth = _log_probabilities(model.float()(torch.tensor([ids]))[0], ids)
    model = model.bfloat16()
    changes = {"torch bfloat16": _log_probabilities(model(torch.tensor([ids]))[0].float(), ids) - truth}
    for bits in (16, 8, 4):
        fused = FusedDecoder(model.config, packed_weights(model, bits), bits=bits)
        cache = KVCache(model.config, capacity=len(ids), dtype=torch.bfloat16)
        logits = fused.step(cache, [Part(0, ids)], only_last=False)
        changes[f"{bits} bit"] = _log_probabilities(logits, ids) - truth
        fused.close()
    for name, change in changes.items():
        largest, mean = float(change.abs().max()), float(change.mean())
        bench.record(f"{name}: largest change of a log-probability", unit="nats", value=largest, better="lower")
        bench.record(f"{name}: change of the loss", unit="nats", value=-mean, better="lower")


def _log_probabilities(logits_lv: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """Of each token given those before it."""
    log_p = torch.log_softmax(logits_lv[:-1].float(), dim=-1)
    return log_p.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
