"""On the backend at hand: attention's programs and the mixers' algorithms against the reference, forward and gradient.

tests/benchmarks/accelerator.py runs these where an accelerator is; the tests hold the same equalities on the CPU.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from benchmarks.algorithms import CASES as ALGORITHMS
from benchmarks.algorithms import compiled, model_of

from research.config import AttentionConfig, ModelConfig
from research.models.kernels.attention import PREFERRED, Call, attend, choose, refusal
from research.models.kernels.attention_mask import Mask
from research.models.kernels.plain_attention import dense
from research.sharding import platform

# Of the largest entry. float32: another order of sums of a few hundred terms. bfloat16: weights, sums of the gradients
# and results are rounded to 8 bits, where the reference rounds nothing but what both are given.
BOUND = {"float32": 1e-4, "bfloat16": 2e-2}
BATCH = 2
Check = tuple[str, float, float]  # (what, worst difference over the largest entry, its bound)

ATTENTION = {  # name -> (length, heads, key-value heads, channels, dtype, mask, tokens the first sequence lacks)
    "64 channels": (512, 4, 4, 64, "bfloat16", Mask(), 0),
    "128 channels, 4 heads over 1": (512, 4, 1, 128, "bfloat16", Mask(), 0),
    "80 channels, 4 heads over 2": (512, 4, 2, 80, "bfloat16", Mask(), 0),
    "odd length": (333, 4, 2, 64, "bfloat16", Mask(), 0),
    "window": (512, 4, 2, 64, "bfloat16", Mask(window=100), 0),
    "padding after": (512, 4, 2, 64, "bfloat16", Mask(ends_early=True), 77),
    "both ways, padding after": (512, 4, 2, 64, "bfloat16", Mask(causal=False, ends_early=True), 77),
    "window, float32": (333, 4, 2, 64, "float32", Mask(window=100), 0),
}


def attention_checks() -> list[Check]:
    """Each form that can compute a case here against `dense` in float32; "auto" marks what a model would get."""
    checks, backend = [], platform()
    for name, (length, heads, kv_heads, channels, dtype, mask, missing) in ATTENTION.items():
        rng = np.random.default_rng(0)
        shapes = [(BATCH, length, count, channels) for count in (heads, kv_heads, kv_heads)]
        arrays = [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]
        real_BS = jnp.arange(length)[None] < jnp.asarray([length - missing, length])[:, None]
        if missing:
            mask = replace(mask, real_BS=real_BS)
        padding = "after" if missing else "none"
        call = Call(length, length, channels, dtype, mask.causal, mask.window, padding)
        exact = [x.astype(jnp.float32) for x in arrays]
        with jax.default_matmul_precision("highest"):
            expected = _outcome(
                lambda *qkv, mask=mask: dense(*qkv, mask, None, qkv[0].shape[-1] ** -0.5), exact, real_BS
            )
        for form in ("dense", "chunked", *PREFERRED.get(backend, ())):
            if refusal(form, call, backend) is not None:
                continue
            model = ModelConfig(attention=AttentionConfig(algorithm=form))
            with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
                found = _outcome(lambda *qkv, m=model, k=mask: attend(m, "attention", *qkv, k), arrays, real_BS)
            mark = " (auto)" if form == choose("attention", "auto", call, backend) else ""
            checks.append((f"attention, {name}: {form}{mark}", _worst(found, expected), BOUND[dtype]))
    return checks


def _outcome(program, arrays: list[jax.Array], real_BL: jax.Array):
    """(mixed, gradients by the arrays) of real queries alone: what others get means nothing."""

    def loss(*arrays):
        mixed = jnp.where(real_BL[:, :, None, None], program(*arrays).astype(jnp.float32), 0)
        weights = jnp.asarray(np.random.default_rng(1).normal(size=mixed.shape), jnp.float32)
        return jnp.sum(mixed * weights), mixed

    return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(*arrays)


def algorithm_checks(width: int = 128, batch: int = 2, length: int = 96) -> list[Check]:
    """Loss and gradients of one layer by every algorithm against the first of its section, in float32 throughout."""
    checks = []
    for section, (_, rows) in ALGORITHMS.items():
        expected = None
        for row, fields in rows.items():
            if "capacity_factor" in fields:
                continue  # drops choices
            with jax.default_matmul_precision("highest"):
                program, arguments = compiled(model_of(section, fields, width, "float32"), batch, length)
            gradients, terms, _ = program(*arguments)
            if expected is None:
                expected = (gradients, terms.loss)
            else:
                checks.append((f"{section}: {row}", _worst((gradients, terms.loss), expected), BOUND["float32"]))
    return checks


def _worst(found, expected) -> float:
    """The largest difference of any array over that array's largest entry; infinite where one is not finite."""
    worst = 0.0
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        largest, apart = np.abs(other).max(), np.abs(one - other).max()
        relative = apart / largest if largest else (np.inf if apart else 0.0)
        worst = max(worst, float(relative) if np.isfinite(relative) else np.inf)
    return worst
