"""Configs are values: they round-trip, override with typed errors, and their fingerprint is the run's identity."""

import dataclasses
from dataclasses import replace
from typing import Literal, get_origin, get_type_hints

import pytest

from research.config import (
    AdamWConfig,
    AttentionConfig,
    CheckpointConfig,
    ConfigError,
    DataConfig,
    EvaluationConfig,
    MeshConfig,
    MlpConfig,
    ModelConfig,
    RunConfig,
    SourceConfig,
    TaskConfig,
    TrainingConfig,
    differences,
    fingerprint,
    from_json,
    identity,
    override,
    to_json,
)
from research.plan import IsoFlop

BASE = RunConfig()


def test_json_round_trip_and_canonical_text():
    config = replace(BASE, model=ModelConfig(attention=AttentionConfig(window=7)), budget_flops=3e18)
    assert from_json(RunConfig, to_json(config)) == config
    assert to_json(from_json(RunConfig, to_json(config))) == to_json(config)


def test_fingerprint_follows_what_decides_the_numbers():
    assert fingerprint(BASE) == fingerprint(RunConfig())
    elsewhere = override(BASE, ["mesh.fsdp=8", "checkpoint.every=7", "logging.every=1", "training.microbatches=4"])
    assert fingerprint(elsewhere) == fingerprint(BASE) and elsewhere != BASE
    for assignment in (
        "training.seed=1",
        "model.norm_epsilon=1e-6",
        "data.validation_fraction=0.1",
        "optimizer.beta2=0.9",
    ):
        assert fingerprint(override(BASE, [assignment])) != fingerprint(BASE), assignment


@pytest.mark.parametrize(
    ("assignment", "read", "value"),
    [
        ("model.width=128", lambda c: c.model.width, 128),
        ("data.train_tokens=2e7", lambda c: c.data.train_tokens, 20_000_000),
        ("optimizer.learning_rate=1", lambda c: c.optimizer.learning_rate, 1.0),
        ("optimizer.clip_norm=none", lambda c: c.optimizer.clip_norm, None),
        ("model.attention.window=32", lambda c: c.model.attention.window, 32),
        ("model.tied_embeddings=true", lambda c: c.model.tied_embeddings, True),
        ("optimizer.schedule=wsd", lambda c: c.optimizer.schedule, "wsd"),
        ('data.sources=[{"name": "web", "tfds": "c4/en:3.1.0"}]', lambda c: c.data.sources,
         (SourceConfig("web", "c4/en:3.1.0"),)),
    ],
)  # fmt: skip
def test_overrides_parse_by_the_declared_type(assignment, read, value):
    result = read(override(BASE, [assignment]))
    assert result == value and type(result) is type(value)


def test_overrides_of_an_experiment_reach_its_tuples():
    experiment = IsoFlop("x", "?", BASE, budgets=(1e12,), sizes=((64, 2),))
    changed = override(experiment, ["budgets=1e18,3e18", "sizes=[[512,8],[1024,16]]", "base.model.depth=8"])
    assert changed.budgets == (1e18, 3e18) and changed.sizes == ((512, 8), (1024, 16)) and changed.base.model.depth == 8


def test_fields_that_must_agree_change_together():
    changed = override(BASE, ["model.vocab_size=512", "data.vocab_size=512"])
    assert changed.model.vocab_size == changed.data.vocab_size == 512


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("model.wdth=1", r"model.wdth: unknown field 'wdth'. Nearest: width"),
        ("modle.width=1", r"unknown field 'modle'. Nearest: model"),
        ("model.width=wide", r"model.width = 'wide': must be int"),
        ("model.width=1.5", r"model.width = 1.5: must be int"),
        ("model.width=true", r"model.width = True: must be int"),
        ("model.tied_embeddings=1", r"must be bool"),
        ("optimizer.schedule=linear", r"must be one of 'cosine', 'wsd', 'constant'"),
        ("optimizer.learning_rate=NaN", r"must be float"),
        ("training.seed=Infinity", r"training.seed = inf: must be int"),
        ("training.seed=NaN", r"training.seed = nan: must be int"),
        ("model.pattern=0 * attention:mlp", r"pattern = '0 \* attention:mlp': must repeat at least one layer"),
        ("model.width", r"must be key=value"),
        ("model.width.x=1", r"width has no fields of its own"),
    ],
)
def test_bad_overrides_name_field_value_and_rule(assignment, message):
    with pytest.raises(ConfigError, match=message):
        override(BASE, [assignment])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AttentionConfig(heads=4, kv_heads=3), r"kv_heads = 3: must divide heads = 4"),
        (lambda: AttentionConfig(head_dim=5), r"head_dim = 5: times rope_fraction = 1 must be even"),
        (lambda: AttentionConfig(window=0), r"window = 0"),
        (lambda: MlpConfig(hidden=0), r"model.mlp.hidden = 0"),
        (
            lambda: ModelConfig(depth=3, pattern="attention:mlp,attention:mlp"),
            r"depth = 3: must be a multiple of the 2",
        ),
        (lambda: ModelConfig(pattern="a:b:c"), r"pattern"),
        (lambda: DataConfig(vocab_size=100), r"vocab_size = 100: must be from 259"),
        (lambda: DataConfig(sources=()), r"at least one source"),
        (lambda: SourceConfig("a", "x", rate=0), r"rate = 0: must be positive unless final_rate is"),
        (lambda: SourceConfig("a", "x", rate=-1), r"rate = -1: must be at least 0"),
        (lambda: DataConfig((SourceConfig("a", "x", final_rate=0),)), r"must have a positive final rate among them"),
        (lambda: DataConfig(tokenizer_sources=(SourceConfig("a", "x"),)), r"nothing to teach the tokenizer 'bytes'"),
        (lambda: DataConfig(shift_fraction=0), r"shift_fraction = 0: must be above zero"),
        (lambda: AdamWConfig(schedule="wsd", warmup_fraction=0.9), r"must not exceed 1"),
        (lambda: TrainingConfig(batch_size=8, microbatches=3), r"microbatches = 3: must divide batch_size = 8"),
        (lambda: TrainingConfig(accumulation_dtype="bfloat16"), r"is of sums over microbatches, and microbatches is 1"),
        (lambda: EvaluationConfig(every=0), r"evaluation.every"),
        (lambda: MeshConfig(data=-1, fsdp=-1), r"-1 on one axis"),
        (lambda: CheckpointConfig(every=4, keep_every=6), r"keep_every = 6: must be none or a multiple of every = 4"),
        (lambda: RunConfig(model=ModelConfig(vocab_size=300)), r"model.vocab_size = 300: must equal data.vocab_size"),
        (
            lambda: RunConfig(model=ModelConfig(max_positions=16), training=TrainingConfig(sequence_length=32)),
            r"model.max_positions = 16: must be at least training.sequence_length = 32.* Fix: use 32 or more",
        ),
        (lambda: RunConfig(training=TrainingConfig(steps=10**6)), r"128.00 epochs .* raise data.train_tokens"),
    ],
)
def test_bad_values_are_refused_when_made(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def _configs(value):
    if dataclasses.is_dataclass(value):
        yield value
        for item in dataclasses.fields(value):
            yield from _configs(getattr(value, item.name))


def test_a_choice_that_is_none_is_refused_however_a_config_is_made():
    task = TaskConfig("copy")
    found = {type(config): config for config in [*_configs(BASE), task]}
    choices = [
        (config, name)
        for config in found.values()
        for name, hint in get_type_hints(type(config)).items()
        if get_origin(hint) is Literal
    ]
    assert len(choices) > 25
    for config, name in choices:
        with pytest.raises(ConfigError, match=rf"\b{name} = 'nonsense': must be one of '"):
            replace(config, **{name: "nonsense"})
    with pytest.raises(ConfigError, match=r"optimizer.schedule = 'cosin': must be .* Fix: write cosine\."):
        AdamWConfig(schedule="cosin")
    with pytest.raises(ConfigError, match=r"model.attention.positions = 'rotray': must be .* Fix: write rotary\."):
        override(BASE, ["model.attention.positions=rotray"])


def test_repetition_is_allowed_when_asked_for():
    assert RunConfig(training=TrainingConfig(steps=10**6, max_epochs=130)).training.tokens > BASE.data.train_tokens


def test_differences_name_the_field():
    other = override(BASE, ["optimizer.beta1=0.8"])
    assert differences(identity(BASE), identity(other)) == [("optimizer.beta1", 0.9, 0.8)]


def test_unknown_and_missing_fields_in_json():
    with pytest.raises(ConfigError, match=r"unknown field 'bogus'"):
        from_json(RunConfig, to_json(BASE).replace('"family"', '"bogus"'))
    with pytest.raises(ConfigError, match=r"missing field 'tfds'"):
        from_json(SourceConfig, '{"name": "a"}')
