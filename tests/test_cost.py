"""Closed forms equal what the real module has and what its program executes, exactly."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import jaxpr_flops
import pytest
from random_configs import OTHER_PATTERNS, cases, random_model

from research.config import RunConfig, TrainingConfig
from research.models import language_model
from research.models.layers import is_boxed
from research.plan import decode_state_bytes, model_cost, run_cost, train_state_bytes
from research.training.objective import language_modelling
from research.training.step import gradients

CASES = cases(24, 4)
LENGTH = 12


@pytest.mark.parametrize(("seed", "pattern"), CASES)
def test_parameters_equal_the_leaves(seed, pattern):
    model = random_model(seed, pattern)
    boxed = language_model.abstract(model)
    params = language_model.unbox(boxed)
    boxes = jax.tree.leaves(boxed, is_leaf=is_boxed)
    counted = sum(math.prod(box.value.shape) for box in boxes if box.role != "balance")  # which is not trained
    cost = model_cost(model, LENGTH)
    assert cost.params == counted
    tables = [params[name].shape for name in ("embedding", "positions", "head") if name in params]
    assert cost.embedding_params == sum(map(math.prod, tables))


@pytest.mark.parametrize(("seed", "pattern"), CASES)
def test_forward_flops_equal_the_jaxpr(seed, pattern):
    model = random_model(seed, pattern)
    params = language_model.unbox(language_model.abstract(model))
    tokens = jax.ShapeDtypeStruct((3, LENGTH), jnp.int32)
    counted = jaxpr_flops.count(lambda p, t: language_model.logits(model, p, t), params, tokens)
    assert counted == 3 * LENGTH * model_cost(model, LENGTH).forward_flops_per_token


@pytest.mark.parametrize(("seed", "pattern"), CASES)
@pytest.mark.parametrize("microbatches", [1, 2])
def test_training_flops_equal_the_jaxpr(seed, pattern, microbatches):
    config = RunConfig(
        model=replace(random_model(seed, pattern), vocab_size=259),
        training=TrainingConfig(steps=7, batch_size=4, sequence_length=LENGTH, microbatches=microbatches),
    )
    params = language_model.unbox(language_model.abstract(config.model))
    batch = {
        name: jax.ShapeDtypeStruct((4, LENGTH), kind)
        for name, kind in (("inputs", jnp.int32), ("targets", jnp.int32), ("weights", jnp.float32))
    }
    counted = jaxpr_flops.count(
        lambda p, b: gradients(language_modelling(config), config.training.microbatches, p, b), params, batch
    )
    assert counted == run_cost(config).flops_per_step
    assert run_cost(config).flops == 7 * counted


def test_conventions_differ_as_documented():
    config = RunConfig()
    cost, model = run_cost(config), model_cost(config.model, config.training.sequence_length)
    attention = 3 * model.sequence_flops * config.training.steps * config.training.batch_size
    assert cost.flops - cost.flops_causal == attention // 2
    assert cost.flops_6nd == 6 * cost.params * cost.tokens
    assert train_state_bytes(config) == 16 * cost.params


@pytest.mark.parametrize("pattern", ["attention:mlp", *OTHER_PATTERNS])
def test_decode_state_bytes_equal_the_arrays(pattern):
    model = random_model(3, pattern)
    states = jax.eval_shape(lambda: language_model.init_states(model, 1, 50))
    arrays = [leaf for leaf in jax.tree.leaves(states) if leaf.dtype == jnp.float32]
    assert decode_state_bytes(model, 50) == sum(4 * math.prod(leaf.shape) for leaf in arrays)
