"""The same layers in fewer passes: what a model runs on a CPU when it reads whole rows.

Matrix products take a third of a plain bfloat16 training step there; casts, copies and elementwise passes take
the rest. So norm and residual, rotation, SwiGLU and the loss's softmax are each one compiled pass, projections of
one input are one matrix product, and the backward pass recomputes what is cheap instead of keeping it. `llama.py`
stays the definition: it computes the same, is the oracle of the tests, and runs wherever `is_fusible` says no.
"""

from midspan.model.fused.kernels import keep_memory
from midspan.model.fused.layers import fused_block, fused_norm, is_fusible

__all__ = ["fused_block", "fused_norm", "is_fusible", "keep_memory"]
