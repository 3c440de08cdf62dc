"""Inference: prompts as token ids in, completions out, many sequences at a time.

`Engine` holds a model and its tokenizer, `SampleConfig` says how tokens are chosen, a `Decoder` reads new tokens.
"""

from midspan.engine.decoder import Decoder, Span, open_decoder
from midspan.engine.engine import Completion, Engine
from midspan.engine.sample import SampleConfig

__all__ = ["Completion", "Decoder", "Engine", "SampleConfig", "Span", "open_decoder"]
