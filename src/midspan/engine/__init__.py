"""Inference: requests in, texts out, many at a time, with nothing read twice.

`Engine` holds a model and its tokenizer; `Request` says what is asked, `SampleConfig` how tokens are chosen,
`Completion` what came of it, and a `Handle` is a request under way.
"""

from midspan.engine.engine import Engine
from midspan.engine.request import CHAT, INFILL, Completion, Handle, Request, TokenLogprob, Usage
from midspan.engine.sample import SampleConfig

__all__ = [
    "CHAT",
    "INFILL",
    "Completion",
    "Engine",
    "Handle",
    "Request",
    "SampleConfig",
    "TokenLogprob",
    "Usage",
]
