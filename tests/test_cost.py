"""Closed forms equal what the real module has and what its program executes, exactly; a model's work is one number."""

import math
import re
from dataclasses import replace
from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import jaxpr_flops
import pytest
from random_configs import ATTENTION, OTHER_PATTERNS, cases, random_model

from research.config import AttentionConfig, ConfigError, ModelConfig, MoeConfig, RunConfig, TaskConfig, TrainingConfig
from research.models import language_model
from research.models.algorithms import KERNELS, algorithm
from research.models.experts import dispatch
from research.models.layers import is_boxed
from research.models.mixers import CHANNEL_MIXERS, SEQUENCE_MIXERS
from research.models.recurrent import delta_rule, rwkv4
from research.models.state_spaces import selective_scan, ssd
from research.plan import decode_state_bytes, executed_cost, model_cost, run_cost, train_state_bytes
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


def _run(seed, pattern, batch, **training):
    model = replace(random_model(seed, pattern), vocab_size=259)
    return RunConfig(model=model, training=TrainingConfig(batch_size=batch, sequence_length=LENGTH, **training))


@pytest.mark.parametrize(("seed", "pattern"), CASES)
def test_executed_forward_flops_equal_the_jaxpr(seed, pattern):
    config = _run(seed, pattern, 3, steps=1)
    params = language_model.unbox(language_model.abstract(config.model))
    tokens = jax.ShapeDtypeStruct((3, LENGTH), jnp.int32)
    counted = jaxpr_flops.count(lambda p, t: language_model.logits(config.model, p, t), params, tokens)
    assert 3 * counted == executed_cost(config, "cpu").executed_flops


# A loop of microbatches executes the same of any mixer.
@pytest.mark.parametrize(
    ("seed", "pattern", "microbatches"),
    [*((*case, 1) for case in CASES), (0, "attention:mlp", 2), (0, "attention:moe", 2)],
)
def test_executed_training_flops_equal_the_jaxpr(seed, pattern, microbatches):
    config = _run(seed, pattern, 4, steps=7, microbatches=microbatches)
    params = language_model.unbox(language_model.abstract(config.model))
    batch = {
        name: jax.ShapeDtypeStruct((4, LENGTH), kind)
        for name, kind in (("inputs", jnp.int32), ("targets", jnp.int32), ("weights", jnp.float32))
    }
    counted = jaxpr_flops.count(
        lambda p, b: gradients(language_modelling(config), config.training, p, b), params, batch
    )
    assert 7 * counted == executed_cost(config, "cpu").executed_flops


@pytest.mark.parametrize("seed", range(4))
def test_attention_and_mlp_execute_the_models_work(seed):
    config = _run(seed, "attention:mlp", 4)
    assert executed_cost(config, "gpu").executed_flops == run_cost(config).flops


PROGRAMS = [
    ("attention:moe", "moe", [{"algorithm": name} for name in ("dense", "capacity", "ragged")] + [
        {"algorithm": "capacity", "capacity_factor": factor} for factor in (1.0, 1.25)]),
    ("mamba:mlp", "mamba", [{"algorithm": name, "chunk": chunk} for name in ("sequential", "chunked", "associative")
                            for chunk in (4, 12)]),
    ("mamba2:mlp", "mamba2", [{"algorithm": "recurrent"}, *({"algorithm": "chunked", "chunk": c} for c in (2, 5, 12))]),
    ("rwkv4_time:rwkv4_channel", "rwkv4", [{"algorithm": name} for name in ("sequential", "associative")]),
    ("rwkv7_first:rwkv7_channel | rwkv7_time:rwkv7_channel", "rwkv7",
     [{"algorithm": "sequential"}, *({"algorithm": "chunked", "chunk": chunk} for chunk in (2, 5, 12))]),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "section", "programs"), PROGRAMS, ids=[section for _, section, _ in PROGRAMS])
def test_the_models_work_is_one_number_for_every_program(pattern, section, programs):
    chunk = {"chunk": LENGTH} if "chunk" in programs[-1] else {}
    auto = _with(_run(1, pattern, 4), section, algorithm="auto", **chunk)
    runs = [_with(auto, section, **program) for program in programs]
    assert {run_cost(run) for run in runs} == {run_cost(auto)}
    executed = [executed_cost(run, "cpu") for run in runs]
    assert len(set(executed)) > 1 or section == "mamba"  # whose scans all execute the same
    assert executed_cost(auto, "cpu") in executed


def _with(config, section, **fields):
    changed = replace(getattr(config.model, section), **fields)
    return replace(config, model=replace(config.model, **{section: changed}))


# Mixers that read what an encoder wrote, which random models have none of; tests/test_seq2seq.py is theirs.
ATTENDED = [f"{cell}_{score}" for cell in ("lstm", "gru") for score in ("additive", "multiplicative")]
PAIRED = {"cross_attention": "attention", **{name: name.partition("_")[0] for name in ATTENDED}}  # mixer -> encoder
# Forward FLOPs over a sequence of L tokens beyond the parameters' products, by hand: a number of a recurrence's state
# is updated by a product and a sum and read by as many; a source has 7 tokens. What a program executes cannot stand in.
SEQUENCE_WORK = {
    "attention": lambda m, L: 4 * L * L * m.attention.heads * m.attention.head_dim,
    "latent_attention": lambda m, L: 2 * L * L * m.latent_attention.heads * (64 + 32 + 64),
    "mamba": lambda m, L: 4 * L * m.mamba.state_size * 2 * 64,
    "mamba2": lambda m, L: 4 * L * m.mamba2.state_size * 2 * 64,
    "s4": lambda m, L: 4 * L * m.s4.state_size * 64,
    "h3": lambda m, L: 4 * L * m.h3.state_size * 64 * (1 + 1),  # of the shift, and of the diagonal
    "rwkv4_time": lambda m, L: 4 * L * 2 * 64,
    "rwkv7_first": lambda m, L: 4 * L * 2 * 64 * 64,  # read and written to twice
    "rwkv7_time": lambda m, L: 4 * L * 2 * 64 * 64,
    "lstm": lambda m, L: 0,  # parameters alone
    "gru": lambda m, L: 0,
    "cross_attention": lambda m, L: 4 * 7 * (64 * m.attention.kv_heads + L * m.attention.heads) * m.attention.head_dim,
    **dict.fromkeys(ATTENDED, lambda m, L: 2 * 7 * 64 * 64 + 4 * L * 7 * 64),
}


@pytest.mark.parametrize("mixer", SEQUENCE_MIXERS)
def test_the_models_work_over_a_sequence_is_the_convention(mixer):
    assert mixer in SEQUENCE_WORK, f"{mixer}: say in SEQUENCE_WORK what its sequence_flops are"
    pair = {"depth": 1, "pattern": f"{PAIRED[mixer]} -> {mixer}", "source_length": 7} if mixer in PAIRED else {}
    model = ModelConfig(width=64, **pair)
    assert SEQUENCE_MIXERS[mixer].sequence_flops(model, 10) == SEQUENCE_WORK[mixer](model, 10)


def test_every_mixer_is_drawn_at_random_or_reads_an_encoder():
    drawn = {name for pattern in (ATTENTION, *OTHER_PATTERNS) for name in re.findall(r"\w+", pattern)}
    assert drawn == {*SEQUENCE_MIXERS, *CHANNEL_MIXERS} - {*PAIRED}


def _routed(**fields):
    moe = MoeConfig(8, 2, hidden=40, **fields)
    return ModelConfig(width=64, depth=1, pattern="attention:moe", attention=AttentionConfig(4, 4, 16), moe=moe)


@pytest.mark.parametrize("factor", [None, 0.5, 1.25])
def test_experts_work_as_many_as_a_token_passes(factor):
    routed = _routed(shared_experts=1, capacity_factor=factor)
    # The head, four square matrices, a router of 8 outputs, 3 experts of 3 matrices; 10 scores and values of 64.
    matrices = 259 * 64 + 4 * 64 * 64 + 64 * 8 + 3 * 3 * 64 * 40
    assert model_cost(routed, 10).forward_flops_per_token == 2 * matrices + 4 * 10 * 64


def test_expert_choice_runs_the_one_algorithm_it_has():
    choice = MoeConfig(4, 2, 10, routing="expert_choice", capacity_factor=1.0, renormalize=False,
                       future_leak_allowed=True)  # fmt: skip
    model = ModelConfig(pattern="attention:moe", moe=choice)
    assert [algorithm(model, "moe", backend) for backend in ("cpu", "gpu")] == ["capacity", "capacity"]


def test_auto_on_an_unknown_backend_is_refused():
    with pytest.raises(ConfigError, match=r"model.rwkv4.algorithm = 'auto': stands for nothing on backend 'abacus'"):
        algorithm(ModelConfig(), "rwkv4", "abacus")


def test_what_is_executed_follows_the_backend():
    config = RunConfig(model=_routed(), training=TrainingConfig(steps=1, batch_size=1, sequence_length=LENGTH))
    on_cpu, on_gpu = (executed_cost(config, backend).executed_flops for backend in ("cpu", "gpu"))
    assert on_cpu == run_cost(config).flops
    assert on_gpu - on_cpu == 3 * LENGTH * (8 - 2) * 2 * 3 * 64 * 40  # every expert multiplies every token


def test_what_an_encoder_executes_counts_too():
    task = TaskConfig("copy", lengths=(2, 8), evaluated=(8,), symbols=16)
    model = replace(_routed(), pattern="attention:moe -> attention, cross_attention:mlp", depth=2, source_length=8)
    config = RunConfig(model=model, task=task, training=TrainingConfig(steps=1, batch_size=1, sequence_length=9))
    on_cpu, on_gpu = (executed_cost(config, backend).executed_flops for backend in ("cpu", "gpu"))
    assert on_cpu == run_cost(config).flops
    assert on_gpu - on_cpu == 3 * 2 * 8 * (8 - 2) * 2 * 3 * 64 * 40  # two layers that read 8 tokens


def test_a_table_of_distances_belongs_to_self_attention():
    table = AttentionConfig(positions="buckets")
    for pattern, there in (("mamba", False), ("mamba, attention", True)):
        plain, asked = ModelConfig(pattern=pattern, depth=2), ModelConfig(pattern=pattern, depth=2, attention=table)
        assert ("distances" in language_model.abstract(asked)) == there
        assert model_cost(asked, 8).params - model_cost(plain, 8).params == (32 * 4 if there else 0)


def test_auto_stands_for_an_algorithm_there_is():
    for section, tables in (
        ("moe", dispatch.ALGORITHMS), ("mamba", {*selective_scan.ALGORITHMS, *KERNELS}), ("mamba2", ssd.ALGORITHMS),
        ("rwkv4", {*rwkv4.ALGORITHMS, *KERNELS}), ("rwkv7", delta_rule.ALGORITHMS),
    ):  # fmt: skip
        for backend in ("cpu", "gpu", "tpu"):
            assert algorithm(ModelConfig(), section, backend) in tables
            asked = get_args(get_type_hints(type(getattr(ModelConfig(), section)))["algorithm"])
            assert set(asked) == {"auto", *tables}


def test_conventions_differ_as_documented():
    config = RunConfig()
    cost, model = run_cost(config), model_cost(config.model, config.training.sequence_length)
    attention = 3 * model.sequence_flops * config.training.steps * config.training.batch_size
    assert cost.flops - cost.flops_causal == attention // 2
    assert cost.flops_6nd == 6 * cost.params * cost.tokens
    assert train_state_bytes(config) == 16 * cost.params
    short = replace(config, optimizer=replace(config.optimizer, first_moment_dtype="bfloat16"))
    assert train_state_bytes(short) == 14 * cost.params


@pytest.mark.parametrize("pattern", ["attention:mlp", *OTHER_PATTERNS])
def test_decode_state_bytes_equal_the_arrays(pattern):
    model = random_model(3, pattern)
    states = jax.eval_shape(lambda: language_model.init_states(model, 1, 50))
    arrays = [leaf for leaf in jax.tree.leaves(states) if leaf.dtype == jnp.float32]
    assert decode_state_bytes(model, 50) == sum(4 * math.prod(leaf.shape) for leaf in arrays)
