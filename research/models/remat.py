"""What a layer keeps for its gradient, by `model.remat`; the rest is computed again from the layer's input.

    none        everything that a gradient reads
    dots        results of products with weights, and of attention
    attention   results of attention alone: the length squared is paid for once (without attention: nothing)
    full        nothing

Attention's result is as large as one product's, and costs as much to compute again as the layer's other products once
the length reaches a few times the width. A kernel's own sums (of exponentials, a number a query and head) are kept with
it, since its gradient would run the kernel again for them.
"""

from collections.abc import Callable
from typing import Any

import jax

ATTENTION_RESULT = "attention_result"  # what attention's programs call it: `jax.ad_checkpoint.checkpoint_name`
FUSED = "dot_product_attention_fwd"  # how the names of cuDNN's primitives begin, which cannot be told another


def _attention(primitive: Any, *arguments: Any, **parameters: Any) -> bool:
    named = jax.checkpoint_policies.save_only_these_names(ATTENTION_RESULT)
    return primitive.name.startswith(FUSED) or named(primitive, *arguments, **parameters)


def _dots(primitive: Any, *arguments: Any, **parameters: Any) -> bool:
    of_weights = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return of_weights(primitive, *arguments, **parameters) or _attention(primitive, *arguments, **parameters)


POLICIES: dict[str, Callable[..., bool]] = {
    "dots": _dots,
    "attention": _attention,
    "full": jax.checkpoint_policies.nothing_saveable,
}
