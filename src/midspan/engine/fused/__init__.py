"""The decode step in compiled code: weights of 16, 8 or 4 bits, its own threads, one cache with torch.

`decode.cpp` is the step, `library.py` compiles it on the user's machine, `weights.py` packs a model's tensors for
it and keeps them, `decoder.py` calls it.
"""

from midspan.engine.fused.decoder import FusedDecoder
from midspan.engine.fused.weights import packed_weights

__all__ = ["FusedDecoder", "packed_weights"]
