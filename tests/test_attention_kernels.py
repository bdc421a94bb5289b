"""Attention's programs: one function, forward and backward, on a mesh too; what is kept for a gradient."""

import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax._src.cudnn.fused_attention_stablehlo as jax_cudnn
import jax.numpy as jnp
import jaxpr_flops
import numpy as np
import pytest
from jax import export

from research.config import (
    AttentionConfig,
    ConfigError,
    LatentAttentionConfig,
    MeshConfig,
    MlpConfig,
    ModelConfig,
    fingerprint,
)
from research.models import language_model
from research.models.algorithms import resolved
from research.models.kernels.attention import attend, on_devices
from research.models.kernels.attention_mask import Mask
from research.models.kernels.cudnn_attention import cudnn
from research.models.kernels.plain_attention import chunked, dense
from research.models.kernels.splash_attention import splash
from research.models.mixers import SEQUENCE_MIXERS
from research.plan import model_cost
from research.sharding import make_mesh

B, H, G, K, V = 2, 4, 2, 8, 6
BLOCK = 8
# float32: another order of sums of a few hundred terms. bfloat16: both round weights and gradients to 8 bits.
TOLERANCE = {"float32": 2e-5, "bfloat16": 3e-2}


def _arrays(queries, sources, dtype, kv_heads=G, channels=(K, V)):
    rng = np.random.default_rng(0)
    shapes = ((B, queries, H, channels[0]), (B, sources, kv_heads, channels[0]), (B, sources, kv_heads, channels[1]))
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def _padded(length, before=0, after=0):
    """Real tokens (B, L), of which the second sequence has fewer."""
    rows = [(np.arange(length) >= before) & (np.arange(length) < length - after), np.ones(length, bool)]
    return jnp.asarray(np.stack(rows[::-1]))


def _segments(length):
    return jnp.asarray(np.stack([np.arange(length) // 9, np.arange(length) >= 13]).astype(np.int32))


MASKS = {  # name -> mask of a sequence with itself
    "causal": lambda L: Mask(),
    "window": lambda L: Mask(window=5),
    "wide window": lambda L: Mask(window=3 * L),
    "padding before": lambda L: Mask(real_BS=_padded(L, before=11)),
    "window, padding before": lambda L: Mask(window=7, real_BS=_padded(L, before=11)),
    "packed": lambda L: Mask(segments_BS=_segments(L)),
    "both ways": lambda L: Mask(causal=False),
    "both ways, window": lambda L: Mask(causal=False, window=4),
    "both ways, padding after": lambda L: Mask(causal=False, real_BS=_padded(L, after=9), ends_early=True),
}


# Every mask in float32; where less is precise, one that has everything.
CASES = [*((kind, "float32") for kind in MASKS), ("window, padding before", "bfloat16"), ("both ways", "bfloat16")]


def _outcome(program, arrays, mask, weights_BL=None):
    """(mixed, gradients by the arrays) in float32, of real queries alone: what others get means nothing."""
    real_BL = mask.real_BS if weights_BL is None else weights_BL
    real_BL = jnp.ones(arrays[0].shape[:2], bool) if real_BL is None else real_BL

    def loss(arrays):
        mixed = jnp.where(real_BL[:, :, None, None], program(*arrays).astype(jnp.float32), 0)
        weights = jnp.asarray(np.random.default_rng(1).normal(size=mixed.shape), jnp.float32)
        return jnp.sum(mixed * weights), mixed

    gradients, mixed = jax.jit(jax.grad(loss, has_aux=True))(arrays)
    return jax.tree.map(lambda x: np.asarray(x, np.float32), (mixed, gradients))


def _assert_equal(found, expected, dtype):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE[dtype] * np.abs(other).max())


@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_chunked_is_dense(kind, dtype):
    length = 75  # nine blocks in four spans, and a rest of three
    arrays, mask = _arrays(length, length, dtype), MASKS[kind](length)
    expected = _outcome(lambda *qkv: dense(*qkv, mask, None, 0.3), arrays, mask)
    _assert_equal(_outcome(lambda *qkv: chunked(*qkv, mask, None, 0.3, BLOCK), arrays, mask), expected, dtype)


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_chunked_is_dense_for_cross_attention_and_any_group(kv_heads):
    arrays = _arrays(29, 41, "float32", kv_heads)
    mask = Mask(causal=False, real_BS=_padded(41, after=12), ends_early=True)
    every = jnp.ones((B, 29), bool)
    expected = _outcome(lambda *qkv: dense(*qkv, mask, None, 0.3), arrays, mask, every)
    found = _outcome(lambda *qkv: chunked(*qkv, mask, None, 0.3, BLOCK), arrays, mask, every)
    _assert_equal(found, expected, "float32")


def test_chunked_is_dense_after_a_cache():
    arrays = _arrays(21, 60, "float32")

    def both(start):
        mask = Mask(window=20, start=start)
        return [program(*arrays, mask, None, 0.3) for program in (dense, lambda *a: chunked(*a, BLOCK))]

    for start in (0, 17):
        expected, found = jax.jit(both)(jnp.int32(start))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        alone = dense(arrays[0], *(x[:, : start + 21] for x in arrays[1:]), Mask(window=20, start=start), None, 0.3)
        np.testing.assert_allclose(alone, expected, rtol=0, atol=1e-6)


MODELS = {
    "relative": ModelConfig(attention=AttentionConfig(4, 2, 6, positions="relative", window=300)),
    "buckets": ModelConfig(attention=AttentionConfig(4, 4, 6, positions="buckets")),
    "rotary": ModelConfig(attention=AttentionConfig(4, 1, 6)),
    "latent": ModelConfig(
        pattern="latent_attention:mlp", latent_attention=LatentAttentionConfig(2, 6, 4, 8, 10, rope_pairs="half")
    ),
    "encoder-decoder": ModelConfig(
        attention=AttentionConfig(4, 2, 6, positions="buckets"),
        pattern="attention:mlp -> attention, cross_attention:mlp",
        source_length=300,
    ),
}
MODELS = {
    name: replace(model, vocab_size=61, width=12, depth=len(model.period), mlp=MlpConfig(16))
    for name, model in MODELS.items()
}


def _with(model, algorithm):
    latent = replace(model.latent_attention, algorithm=algorithm)
    return replace(model, attention=replace(model.attention, algorithm=algorithm), latent_attention=latent)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_and_its_gradients_do_not_depend_on_the_algorithm(name):
    model = MODELS[name]
    params = language_model.init(model, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (2, 530), 0, 61)  # two blocks and a rest
    sources = None if model.encoder is None else (tokens[:, :300], _padded(300, after=50))

    def outcome(algorithm):
        def loss(params):
            logits = language_model.logits(_with(model, algorithm), params, tokens, sources=sources)
            return jnp.mean(logits**2), logits

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    _assert_equal(outcome("chunked"), outcome("dense"), "float32")
    named = [fingerprint(_with(model, algorithm)) for algorithm in ("auto", "dense", "chunked", "cudnn")]
    assert len(set(named)) == 1


@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_splash_is_dense_in_interpret_mode(kind, dtype):
    length = 150
    arrays, mask = _arrays(length, length, dtype), MASKS[kind](length)
    expected = _outcome(lambda *qkv: dense(*qkv, mask, None, 0.3), arrays, mask)
    _assert_equal(_outcome(lambda *qkv: splash(*qkv, mask, 0.3, interpret=True), arrays, mask), expected, dtype)


def test_splash_is_dense_for_cross_attention():
    arrays, every = _arrays(29, 150, "float32", kv_heads=1), jnp.ones((B, 29), bool)
    for real_BS in (None, _padded(150, after=40)):
        mask = Mask(causal=False, real_BS=real_BS, ends_early=True)
        expected = _outcome(lambda *qkv, mask=mask: dense(*qkv, mask, None, 0.3), arrays, mask, every)
        found = _outcome(lambda *qkv, mask=mask: splash(*qkv, mask, 0.3, interpret=True), arrays, mask, every)
        _assert_equal(found, expected, "float32")


MESH = {"data": 2, "fsdp": 1, "tensor": 2, "expert": 1, "sequence": 1}


def test_a_kernel_gets_each_devices_own_sequences_and_heads():
    mesh = make_mesh(MeshConfig(**MESH), jax.devices()[:4])
    arrays, mask = _arrays(140, 140, "float32"), MASKS["padding before"](140)
    shapes = []

    def kernel(q, k, v, mask, scale):
        shapes.append((q.shape, k.shape, mask.real_BS.shape))
        return splash(q, k, v, mask, scale, interpret=True)

    expected = _outcome(lambda *qkv: dense(*qkv, mask, None, 0.3), arrays, mask)
    with jax.set_mesh(mesh):
        found = _outcome(lambda *qkv: on_devices(kernel, *qkv, mask, 0.3), arrays, mask)
    _assert_equal(found, expected, "float32")
    assert set(shapes) == {((1, 140, 2, K), (1, 140, 1, K), (1, 140))}


def test_chunked_on_a_sequence_axis_is_dense_and_splits_every_block():
    mesh = make_mesh(MeshConfig(**{**MESH, "tensor": 1, "sequence": 4}))
    arrays, mask = _arrays(80, 80, "float32"), MASKS["window, padding before"](80)
    expected = _outcome(lambda *qkv: dense(*qkv, mask, None, 0.3), arrays, mask)
    with jax.set_mesh(mesh):
        split = jax.sharding.PartitionSpec("data", "sequence")
        placed = [jax.device_put(x, jax.NamedSharding(mesh, split)) for x in arrays]
        found = _outcome(lambda *qkv: chunked(*qkv, mask, None, 0.3, BLOCK), placed, mask)
        program = jax.jit(
            lambda *qkv: chunked(*qkv, mask, None, 0.3, BLOCK), out_shardings=jax.NamedSharding(mesh, split)
        )
        text = program.lower(*placed).compile().as_text()
    _assert_equal(found, expected, "float32")
    # Keys and values are gathered once, whole; nothing else is moved, no queries and no sums.
    moved = re.findall(r"= (.*?)\{\S* (?:all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)\(", text)
    assert sorted(moved) == [f"f32[1,80,2,{V}]", f"f32[1,80,2,{K}]"]


def _sizes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (math.prod(variable.aval.shape) for variable in equation.outvars)
        for inner in jaxpr_flops._inner_jaxprs(equation.params):
            yield from _sizes(inner)


def _gradient(algorithm, length):
    model = ModelConfig(attention=AttentionConfig(2, 1, 4, algorithm=algorithm))
    shapes = [jax.ShapeDtypeStruct((1, length, heads, 4), jnp.float32) for heads in (2, 1, 1)]
    return jax.grad(lambda *qkv: attend(model, "attention", *qkv, Mask()).sum(), (0, 1, 2)), shapes


def test_what_a_gradient_keeps_grows_with_the_length_and_not_its_square():
    def temporary(algorithm, length):
        function, shapes = _gradient(algorithm, length)
        return jax.jit(function).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    chunked_twice, dense_twice = (temporary(name, 4096) / temporary(name, 2048) for name in ("auto", "dense"))
    assert 1.5 < chunked_twice < 2.3
    assert dense_twice > 3.8
    for name, holds in (("auto", False), ("dense", True)):
        function, shapes = _gradient(name, 2048)
        assert (max(_sizes(jax.make_jaxpr(function)(*shapes).jaxpr)) >= 2048 * 2048) == holds


def test_an_algorithm_that_does_not_run_here_is_refused_and_decoding_asks_for_none():
    model = _with(MODELS["rotary"], "splash")
    params = language_model.init(model, jax.random.key(0))
    with pytest.raises(ConfigError, match="'splash': runs on TPUs alone, and this is a cpu"):
        language_model.logits(model, params, jnp.zeros((1, 5), jnp.int32))
    language_model.decode_step(model, params, jnp.zeros((1, 5), jnp.int32), language_model.init_states(model, 1, 9))


def _lowered_for_cuda(function, *arrays):
    """The calls of cuDNN, with their configs, in what is lowered for a GPU; no cuDNN is loaded."""
    names = [f"__cudnn$fmhaSoftmax{suffix}" for suffix in ("", "Backward")]
    checks = [export.DisabledSafetyCheck.custom_call(name) for name in names]
    text = export.export(jax.jit(function), platforms=["cuda"], disabled_checks=checks)(*arrays).mlir_module()
    calls = re.findall(r'custom_call @(\S+)\((.*?)\).*?backend_config = "(.*?)",', text)
    return {name: (arguments.count("%"), json.loads(config.replace("\\22", '"'))) for name, arguments, config in calls}


@pytest.mark.parametrize(
    ("mask", "kind", "arguments", "window"),
    [
        (Mask(), "CAUSAL", 3, 0),
        (Mask(window=40), "CAUSAL", 3, 40),
        (Mask(causal=False), "NO_MASK", 3, 0),
        (Mask(causal=False, real_BS=_padded(150, after=9), ends_early=True), "PADDING", 5, 0),
    ],
)
def test_cudnn_is_called_forward_and_backward_with_what_was_asked(monkeypatch, mask, kind, arguments, window):
    monkeypatch.setattr(jax_cudnn, "cuda_versions", SimpleNamespace(cudnn_get_version=lambda: 91000))
    arrays = _arrays(150, 150, "bfloat16", channels=(100, 60))
    gradient = jax.grad(lambda *qkv: cudnn(*qkv, mask, 0.3).astype(jnp.float32).sum(), (0, 1, 2))
    calls = _lowered_for_cuda(gradient, *arrays)
    assert {name: found for name, (found, _) in calls.items()} == {
        "__cudnn$fmhaSoftmax": arguments,
        "__cudnn$fmhaSoftmaxBackward": arguments + 3,  # and the output, its gradient and the sums of the softmax
    }
    for _, config in calls.values():
        config = config["cudnn_fmha_backend_config"]
        assert (config["mask_type"], config["sliding_window_length"]) == (kind, window)
        assert config["fmha_scale"] == pytest.approx(0.3)
        assert config["intermediate_tensor_shape"]["dimensions"] == [str(size) for size in (B, H, 150, 150)]
    out = jax.eval_shape(lambda *qkv: cudnn(*qkv, mask, 0.3), *arrays)
    assert out.shape == (B, 150, H, 60)
    with jax.set_mesh(make_mesh(MeshConfig(**MESH), jax.devices()[:4])):  # a device calls it with its own
        split = jax.grad(lambda *qkv: on_devices(cudnn, *qkv, mask, 0.3).astype(jnp.float32).sum(), (0, 1, 2))
        of_device = [config["cudnn_fmha_backend_config"] for _, config in _lowered_for_cuda(split, *arrays).values()]
    sizes = [str(size) for size in (B // 2, H // 2, 150, 150)]
    assert [config["intermediate_tensor_shape"]["dimensions"] for config in of_device] == [sizes, sizes]


def test_cudnn_computes_dense_as_jax_defines_it(monkeypatch):
    """jax's own function in its plain form, with the arguments that cuDNN is called with."""
    real = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *a, **kw: real(*a, **{**kw, "implementation": "xla"}))
    for kind in ("causal", "window", "wide window", "both ways", "both ways, padding after"):
        arrays, mask = _arrays(75, 75, "float32"), MASKS[kind](75)
        expected = _outcome(lambda *qkv, mask=mask: dense(*qkv, mask, None, 0.3), arrays, mask)
        found = _outcome(lambda *qkv, mask=mask: cudnn(*qkv, mask, 0.3), arrays, mask)
        _assert_equal(found, expected, "float32")


@pytest.mark.parametrize("name", [name for name in MODELS if name != "encoder-decoder"])
def test_executed_flops_are_those_of_the_algorithm(name):
    model, length = _with(MODELS[name], "chunked"), 1100
    params = language_model.unbox(language_model.abstract(model))
    tokens = jax.ShapeDtypeStruct((1, length), jnp.int32)
    counted = jaxpr_flops.count(lambda p, t: language_model.logits(model, p, t), params, tokens)
    mixer = SEQUENCE_MIXERS[model.layers[0][0]]
    fewer = model.depth * (mixer.sequence_flops(model, length) - mixer.executed_flops(model, length))
    assert fewer > 0
    assert counted == length * model_cost(model, length).forward_flops_per_token - fewer
    assert model_cost(model, length) == model_cost(_with(model, "auto"), length)
    auto = resolved(_with(model, "auto"), "cpu", length)
    assert getattr(auto, auto.sections[0]).algorithm == "chunked"
