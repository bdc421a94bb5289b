"""Which of attention's programs runs where, and what a named one that cannot is told."""

from dataclasses import replace

import jax.numpy as jnp
import pytest

from research.config import ConfigError
from research.models.kernels.attention import Call, choose, scores
from research.models.kernels.attention_mask import Mask, visible

LONG = Call(2048, 2048, 128, "bfloat16")


@pytest.mark.parametrize(
    ("change", "on_cpu", "on_gpu", "on_tpu"),
    [
        ({}, "chunked", "cudnn", "splash"),
        ({"queries": 1024, "sources": 1024}, "dense", "cudnn", "splash"),
        ({"queries": 127, "sources": 127}, "dense", "dense", "dense"),
        ({"window": 100}, "chunked", "cudnn", "splash"),
        ({"dtype": "float32"}, "chunked", "chunked", "splash"),
        ({"dtype": "float64", "queries": 512}, "dense", "dense", "dense"),
        ({"added": True}, "chunked", "chunked", "chunked"),
        ({"added": True, "queries": 1024, "sources": 1024}, "dense", "dense", "dense"),
        ({"padding": "anywhere"}, "chunked", "chunked", "splash"),
        ({"padding": "after", "causal": False}, "chunked", "cudnn", "splash"),
        ({"causal": False, "sources": 300}, "dense", "cudnn", "splash"),
        ({"causal": False, "window": 100}, "chunked", "chunked", "splash"),
        ({"segments": True}, "chunked", "chunked", "splash"),
        ({"channels": 100}, "chunked", "cudnn", "splash"),
        ({"channels": 250}, "chunked", "cudnn", "splash"),
        ({"channels": 257}, "chunked", "chunked", "splash"),
        ({"divided": "the length is split"}, "chunked", "chunked", "chunked"),
        ({"decoding": True}, "chunked", "chunked", "chunked"),
        ({"decoding": True, "queries": 1, "sources": 100_000}, "dense", "dense", "dense"),
    ],
)
def test_what_auto_chooses(change, on_cpu, on_gpu, on_tpu):
    call = replace(LONG, **change)
    chosen = [choose("attention", "auto", call, backend) for backend in ("cpu", "gpu", "tpu")]
    assert chosen == [on_cpu, on_gpu, on_tpu]


def test_what_auto_chooses_depends_on_the_gpu():
    wide = replace(LONG, channels=192)
    assert choose("attention", "auto", wide, "gpu", (9, 0)) == "cudnn"
    assert choose("attention", "auto", wide, "gpu", (8, 0)) == "chunked"
    assert choose("attention", "auto", LONG, "gpu", (8, 0)) == "cudnn"
    assert (
        choose("attention", "auto", LONG, "gpu", (7, 5)) == choose("attention", "auto", LONG, "gpu", None) == "chunked"
    )


@pytest.mark.parametrize(
    ("algorithm", "backend", "change", "rule"),
    [
        ("cudnn", "tpu", {}, "runs on GPUs alone, and this is a tpu"),
        ("cudnn", "gpu", {"dtype": "float32"}, "computes in bfloat16, and model.compute_dtype is float32"),
        ("cudnn", "gpu", {"channels": 260}, "has heads of at most 256 channels on this GPU, not 264"),
        ("cudnn", "gpu", {"padding": "anywhere"}, "knows padding after a sequence alone"),
        ("splash", "cpu", {}, "runs on TPUs alone, and this is a cpu"),
        ("splash", "tpu", {"added": True}, "adds no scores"),
        ("splash", "tpu", {"divided": "heads = 3 is split over 2"}, "needs whole .* and heads = 3 is split over 2"),
    ],
)
def test_a_named_algorithm_that_cannot_is_refused(algorithm, backend, change, rule):
    with pytest.raises(
        ConfigError, match=rf"model.attention.algorithm = '{algorithm}': {rule}.*\. Fix: set it to auto"
    ):
        choose("attention", algorithm, replace(LONG, **change), backend)
    assert choose("attention", algorithm, replace(LONG, **change, decoding=True), backend) == "chunked"
    with pytest.raises(ConfigError, match=r"model.latent_attention.algorithm"):
        choose("latent_attention", algorithm, replace(LONG, **change), backend)


@pytest.mark.parametrize(("causal", "window"), [(True, None), (True, 7), (False, None), (False, 7), (True, 99)])
def test_a_kernels_scores_are_those_that_are_seen(causal, window):
    seen = visible(Mask(causal, window), jnp.arange(40), 0, 40).sum()
    assert scores("splash", 40, causal, window) == scores("cudnn", 40, causal, window) == seen
