"""The model: Llama and its close kin in plain torch, with Hugging Face's parameter names.

`ModelConfig` is the shape, `Llama` the module, `KVCache` its memory while decoding, `Segments` the documents of
a packed row. `lora` adapts it, `loss` trains it, `weights` reads and writes it in the formats of the field.
"""

from midspan.model.attention import Segments
from midspan.model.cache import KVCache
from midspan.model.config import PRESETS, ModelConfig, RopeScaling
from midspan.model.llama import Llama

__all__ = ["PRESETS", "KVCache", "Llama", "ModelConfig", "RopeScaling", "Segments"]
