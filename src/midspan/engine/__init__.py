"""Inference: prompts as token ids in, completions out, many sequences at a time.

`Engine` holds a model and its tokenizer, `SampleConfig` says how tokens are chosen.
"""

from midspan.engine.engine import Completion, Engine
from midspan.engine.sample import SampleConfig

__all__ = ["Completion", "Engine", "SampleConfig"]
