"""What each policy of rematerialisation computes again: in closed form, and of kernels, how often they run."""

from collections import Counter
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import jaxpr_flops
import pytest
from jax._src.cudnn import fused_attention_stablehlo as jax_cudnn

from research.config import AttentionConfig, MlpConfig, ModelConfig
from research.models import language_model
from research.models.kernels import attention, splash_attention

LENGTH, WIDTH, HEADS, KV_HEADS, CHANNELS, HIDDEN = 300, 48, 4, 2, 12, 80
MODEL = ModelConfig(
    vocab_size=64,
    width=WIDTH,
    depth=2,
    attention=AttentionConfig(HEADS, KV_HEADS, CHANNELS, algorithm="dense"),
    mlp=MlpConfig(HIDDEN),
)
# Forward FLOPs of a layer's parts, the chunked algorithm's scores being in blocks.
SCORES = 2 * HEADS * CHANNELS * LENGTH * LENGTH
WEIGHTS = 2 * LENGTH * WIDTH * (2 * HEADS * CHANNELS + 2 * KV_HEADS * CHANNELS + 3 * HIDDEN)
DOWN = 2 * LENGTH * WIDTH * HIDDEN


def _gradient(model):
    """Of a loss, as a function of abstract parameters, and those."""
    params = language_model.unbox(language_model.abstract(model))
    tokens = jnp.zeros((1, LENGTH), jnp.int32)

    def loss(params):
        return jnp.mean(language_model.logits(model, params, tokens).astype(jnp.float32) ** 2)

    return jax.grad(loss), params


def _flops(remat, **fields):
    return jaxpr_flops.count(*_gradient(replace(MODEL, remat=remat, **fields)))


@pytest.mark.parametrize("pattern", ["attention:mlp", "attention:mlp, attention:mlp"])
@pytest.mark.parametrize("scan_layers", [False, True])
def test_what_is_computed_again_in_closed_form(scan_layers, pattern):
    """A layer's last product is in no gradient, so that none computes it again; nor the mixing where it is kept.

    Layers are computed again one at a time, in a period of several, too.
    """
    fields = {"scan_layers": scan_layers, "pattern": pattern}
    none = _flops("none", **fields)
    again = {remat: _flops(remat, **fields) - none for remat in ("dots", "attention", "full")}
    layers = MODEL.depth
    assert again["full"] == layers * (WEIGHTS - DOWN + 2 * SCORES)
    assert again["attention"] == layers * (WEIGHTS - DOWN + SCORES)
    assert again["dots"] == layers * SCORES


def test_chunked_attention_is_computed_again_once_where_its_result_is_kept():
    """Its own gradient does so; without the result, the policy does so once more."""
    chunked = {"attention": replace(MODEL.attention, algorithm="chunked")}
    of_weights = MODEL.depth * (WEIGHTS - DOWN)
    none, dots, kept, full = (_flops(remat, **chunked) for remat in ("none", "dots", "attention", "full"))
    assert dots == none and kept == none + of_weights
    read = attention.scores("chunked", LENGTH, True, None) / LENGTH**2  # of the pairs, blocks read so many
    assert full - kept == pytest.approx(MODEL.depth * 2 * SCORES * read)


def _calls(jaxpr):
    """How often primitives run, by name, those left out of which nothing is read, as compilers do."""
    found = Counter()
    for equation in jaxpr.eqns:
        if not equation.outvars:
            continue
        found[equation.primitive.name] += 1
        for inner in jaxpr_flops._inner_jaxprs(equation.params):
            found += _calls(inner)
    return found


@pytest.mark.parametrize("remat", ["none", "dots", "attention", "full"])
@pytest.mark.parametrize("kernel", ["splash", "cudnn"])
def test_a_kernel_runs_again_under_full_alone(monkeypatch, kernel, remat):
    monkeypatch.setattr(attention, "choose", lambda *_: kernel)
    monkeypatch.setattr(attention, "splash", partial(splash_attention.splash, interpret=True))
    monkeypatch.setattr(jax_cudnn, "cuda_versions", SimpleNamespace(cudnn_get_version=lambda: 91000))
    gradient, params = _gradient(replace(MODEL, remat=remat, compute_dtype="bfloat16"))
    calls = _calls(jax.make_jaxpr(gradient)(params).jaxpr)
    forward, backward = {
        "splash": (calls["pallas_call"] - 2 * MODEL.depth, 2 * MODEL.depth),  # of keys and values, and of queries
        "cudnn": (calls["dot_product_attention_fwd_wrapper"], calls["dot_product_attention_bwd_wrapper"]),
    }[kernel]
    assert backward == (MODEL.depth if kernel == "cudnn" else 2 * MODEL.depth)
    assert forward == MODEL.depth * (2 if remat == "full" else 1)
