"""A run's name is frozen: fields added later, sections that nothing reads and equal programs leave it alone."""

import dataclasses
import functools
from dataclasses import dataclass, field, fields, make_dataclass, replace
from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import pytest

from research.config import (
    SECTION_MIXERS,
    AdamWConfig,
    AttentionConfig,
    CheckpointConfig,
    ClassificationConfig,
    EvaluationConfig,
    ExamplesConfig,
    H3Config,
    HeadsConfig,
    LatentAttentionConfig,
    Mamba2Config,
    MambaConfig,
    MeshConfig,
    MlpConfig,
    ModelConfig,
    MoeConfig,
    ParentConfig,
    RopeScaling,
    RunConfig,
    Rwkv7Config,
    S4Config,
    SourceConfig,
    TaskConfig,
    TrainingConfig,
    VerifierConfig,
    fingerprint,
    identity,
    override,
    to_dict,
)
from research.config.section import Section
from research.models.layers import Shared
from research.models.mixers import CHANNEL_MIXERS, SEQUENCE_MIXERS
from research.models.recurrent import lstm_gru

BASE = RunConfig()


def run(pattern="attention:mlp", **sections):
    return RunConfig(model=ModelConfig(pattern=pattern, **sections))


EXAMPLES = ExamplesConfig(sha256="0" * 64, path="examples.jsonl")
COPY = TaskConfig("copy", lengths=(2, 8), evaluated=(2, 8), symbols=16)
# Never change a name here: runs on disk are called by them. A name that changes says that a default was changed, a
# field renamed, or a default field written: research/config/identity.py.
FROZEN = {
    "attention": (run(), "44136fa355b3"),
    "llama": (
        run(
            attention=AttentionConfig(8, 2, 32, rope_scaling=RopeScaling(4.0)), mlp=MlpConfig(1024),
            tied_embeddings=True,
        ),
        "2337818c2811",
    ),
    "gpt": (
        run(attention=AttentionConfig(positions="none", biases="all"), norm="layer", max_positions=1024),
        "75ae4897b68e",
    ),
    "latent": (
        run(
            "latent_attention:mlp | latent_attention:moe", depth=5,
            latent_attention=LatentAttentionConfig(8, query_rank=64),
            moe=MoeConfig(16, 4, groups=4, active_groups=2),
        ),
        "fdaee29e78e7",
    ),
    "moe": (run("attention:moe", moe=MoeConfig(8, 1, capacity_factor=1.25, renormalize=False)), "93185ef08ea3"),
    "mamba": (run("mamba", mamba=MambaConfig(state_size=8)), "8838d21837e8"),
    "mamba2": (run("mamba2:mlp", mamba2=Mamba2Config(state_size=16, groups=2)), "d09b8639178c"),
    "rwkv7": (run("rwkv7_first:rwkv7_channel | rwkv7_time:rwkv7_channel", norm="layer", embedding_norm=True,
                  rwkv7=Rwkv7Config(decay_rank=8)), "74ee88fe7eab"),
    "state spaces": (run("s4, h3:mlp", s4=S4Config("diagonal", initialisation="lin"), h3=H3Config(8)), "d13dede11961"),
    "seq2seq": (
        RunConfig(
            model=ModelConfig(pattern="lstm -> lstm_additive", source_length=8), task=COPY,
            training=TrainingConfig(sequence_length=9),
        ),
        "ba750633c66e",
    ),
    "task": (RunConfig(task=COPY, training=TrainingConfig(sequence_length=17)), "9ad4d8c2b9eb"),
    "text": (
        override(BASE, ['data.sources=[{"name": "web", "tfds": "c4/en:3.1.0"}]', "data.train_tokens=3e7"]),
        "8a9933ad09d6",
    ),
    "grid": (
        RunConfig(
            experiment="grid", family="wide", budget_flops=3e18,
            optimizer=AdamWConfig(learning_rate=6.5e-3, schedule="wsd"), training=TrainingConfig(seed=3),
            evaluation=EvaluationConfig(tokens=65_536),
        ),
        "11314d56fa3e",
    ),
    "classifier": (
        RunConfig(
            model=ModelConfig(heads=HeadsConfig(classes=3)), objective=ClassificationConfig(), examples=EXAMPLES
        ),
        "44b5bff907ef",
    ),
    "verifier": (
        RunConfig(
            model=ModelConfig(heads=HeadsConfig(scalar=True)), objective=VerifierConfig("logistic", 0.5),
            examples=dataclasses.replace(EXAMPLES, split_by="template"), parent=ParentConfig("44136fa355b3", "parent"),
        ),
        "068078a85c43",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FROZEN)
def test_names_are_frozen(name):
    config, frozen = FROZEN[name]
    assert fingerprint(config) == frozen


def test_the_frozen_names_differ_and_cover_every_kind_of_mixer():
    assert len({frozen for _, frozen in FROZEN.values()}) == len(FROZEN)


@functools.cache
def _grown(config_class):
    """The class with a further field, in itself and in every default."""
    inherited = []
    for item in fields(config_class):
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        later = default if default is dataclasses.MISSING else _with_one_more_field(default)
        inherited.append((item.name, item.type, field(default=later, metadata=item.metadata)))
    inherited.append(("later", object, field(default=("new", 1.5))))
    return make_dataclass(config_class.__name__, inherited, bases=(config_class,), frozen=True)


def _with_one_more_field(value):
    if isinstance(value, tuple):
        return tuple(_with_one_more_field(item) for item in value)
    if not dataclasses.is_dataclass(value):
        return value
    return _grown(type(value))(**{f.name: _with_one_more_field(getattr(value, f.name)) for f in fields(value)})


@pytest.mark.parametrize("name", FROZEN)
def test_a_field_added_to_every_config_renames_no_run(name):
    config, _ = FROZEN[name]
    larger = _with_one_more_field(config)
    assert larger.later == larger.model.attention.later == larger.data.sources[0].later == ("new", 1.5)
    assert fingerprint(larger) == fingerprint(config)
    assert fingerprint(replace(larger, later=2)) != fingerprint(config)
    deeper = replace(larger, model=replace(larger.model, later=2))
    assert fingerprint(deeper) != fingerprint(config)


def _other_values(section):
    """The section with each field changed alone, where another value of it is a section on its own."""
    hints = get_type_hints(type(section))
    for item in fields(section):
        own, choices = getattr(section, item.name), get_args(hints[item.name])
        numbers = [own * 2, own + 1, own / 2] if isinstance(own, (int, float)) and not isinstance(own, bool) else []
        for other in [*(c for c in choices if isinstance(c, str)), *numbers, not own if own in (True, False) else 3]:
            try:
                changed = replace(section, **{item.name: other})
            except (ValueError, TypeError):
                continue
            if other != own:
                yield item, changed
                break


PATTERNS = {
    "attention": "attention", "latent_attention": "latent_attention", "mlp": "attention:mlp", "moe": "attention:moe",
    "mamba": "mamba", "mamba2": "mamba2", "recurrent": "lstm", "s4": "s4", "h3": "h3", "rwkv4": "rwkv4_time",
    "rwkv7": "rwkv7_first",
}  # fmt: skip


@pytest.mark.parametrize("section", PATTERNS)
def test_a_section_counts_where_a_mixer_reads_it_and_nowhere_else(section):
    used = ModelConfig(depth=1, pattern=PATTERNS[section])
    idle = ModelConfig(depth=1, pattern="gru" if section != "recurrent" else "mamba")
    changed = list(_other_values(getattr(used, section)))
    assert len(changed) >= len(fields(getattr(used, section))) - 3
    for item, other in changed:
        assert fingerprint(replace(idle, **{section: other})) == fingerprint(idle), item.name
        try:
            renamed = fingerprint(replace(used, **{section: other})) != fingerprint(used)
        except ValueError:  # fits no model of this width
            continue
        assert renamed == item.metadata.get("identity", True), item.name


def test_an_encoders_sections_count_too():
    pair = ModelConfig(pattern="attention:mlp -> lstm", source_length=8)
    assert fingerprint(replace(pair, mlp=MlpConfig(96))) != fingerprint(pair)
    assert fingerprint(replace(pair, moe=MoeConfig(4))) == fingerprint(pair)


@pytest.mark.parametrize(
    "assignments",
    [
        ["evaluation.every=7"], ["evaluation.batch_size=4"], ["training.max_epochs=3"], ["training.microbatches=4"],
        ["mesh.fsdp=8"], ["checkpoint.every=7"], ["logging.tensorboard=true"], ["held_out=true"], ["model.remat=full"],
        ["training.microbatches=2", "logging.noise_scale=true"],
    ],
    ids="".join,
)  # fmt: skip
def test_what_changes_no_number_changes_no_name(assignments):
    changed = override(BASE, assignments)
    assert changed != BASE and fingerprint(changed) == fingerprint(BASE)


def test_microbatches_name_a_run_where_their_sums_are_rounded():
    rough = [override(BASE, ["training.accumulation_dtype=bfloat16", f"training.microbatches={n}"]) for n in (2, 4)]
    assert len({fingerprint(run) for run in (BASE, *rough)}) == 3


@pytest.mark.parametrize(
    ("pattern", "section"),
    [
        ("attention:moe", "moe"),
        ("mamba", "mamba"),
        ("mamba2", "mamba2"),
        ("rwkv4_time", "rwkv4"),
        ("rwkv7_first", "rwkv7"),
    ],
)
def test_an_algorithm_and_its_chunk_are_no_part_of_the_name(pattern, section):
    auto = run(pattern, depth=1)
    algorithms = get_args(get_type_hints(type(getattr(auto.model, section)))["algorithm"])
    assert algorithms[0] == "auto" == getattr(auto.model, section).algorithm
    for algorithm in algorithms:
        assert fingerprint(override(auto, [f"model.{section}.algorithm={algorithm}"])) == fingerprint(auto)
    if section in ("mamba", "mamba2", "rwkv7"):
        assert fingerprint(override(auto, [f"model.{section}.chunk=8"])) == fingerprint(auto)


def test_the_text_is_no_part_of_a_task():
    task = RunConfig(task=COPY, training=TrainingConfig(sequence_length=17))
    assert fingerprint(override(task, ["data.train_tokens=3"])) == fingerprint(task)
    assert "data" not in identity(task) and "data" in identity(BASE)


def test_equal_values_have_one_name():
    assert fingerprint(replace(BASE, budget_flops=3e18)) == fingerprint(replace(BASE, budget_flops=3 * 10**18))
    assert fingerprint(replace(BASE, mesh=MeshConfig(fsdp=2), checkpoint=CheckpointConfig(7))) == fingerprint(BASE)
    written_out = replace(BASE.data, sources=tuple(SourceConfig(**to_dict(source)) for source in BASE.data.sources))
    assert fingerprint(replace(BASE, data=written_out)) == fingerprint(BASE)


def test_a_default_inside_of_something_that_is_no_default_is_left_out_too():
    longer = AttentionConfig(rope_scaling=RopeScaling())  # the default there is none
    assert (
        fingerprint(AttentionConfig())
        != fingerprint(longer)
        != fingerprint(AttentionConfig(rope_scaling=RopeScaling(2)))
    )


@dataclass(frozen=True)
class Adam:
    rate: float = 1.0


@dataclass(frozen=True)
class Sgd:
    rate: float = 1.0


@dataclass(frozen=True)
class Lion:
    rate: float = 1.0


@dataclass(frozen=True)
class Choice:
    optimizer: Adam | Sgd | Lion = Adam()


def test_classes_that_a_field_chooses_among_have_different_names():
    assert len({fingerprint(Choice(kind())) for kind in (Adam, Sgd, Lion)}) == 3
    assert fingerprint(Choice()) == fingerprint(Choice(Adam(1.0)))


def _reads(name, mixer):
    """The sections that a mixer's module and counts ask of its config."""
    asked = set()

    class Watched(ModelConfig):
        def __getattribute__(self, name):
            if name in SECTION_MIXERS:
                asked.add(name)
            return super().__getattribute__(name)

    config = Watched(width=64, depth=1, pattern="unnamed", moe=MoeConfig(algorithm="ragged"))
    x = jnp.zeros((1, 4, 64))
    source = {"source_BSD": x, "source_mask_BS": jnp.ones((1, 4), bool)}
    shared = Shared(mask_BL=None, first_value_BLD=x, **source)
    asked.clear()  # of what the config's own checks asked
    state = lstm_gru.init_lstm(config, 1, 4) if name.startswith("lstm_") else None
    state = lstm_gru.init_gru(config, 1, 4) if name.startswith("gru_") else state
    jax.eval_shape(lambda: mixer.module(config, 0).init(jax.random.key(0), x, state, shared))
    return asked


def test_every_mixer_reads_the_one_section_that_names_it():
    known = {mixer for readers in SECTION_MIXERS.values() for mixer in readers}
    everything = {**SEQUENCE_MIXERS, **CHANNEL_MIXERS}
    assert known <= everything.keys()
    for name, mixer in everything.items():
        named = {section for section, readers in SECTION_MIXERS.items() if name in readers}
        assert len(named) <= 1 and _reads(name, mixer) <= named, name
    for item in fields(ModelConfig):
        is_section = isinstance(getattr(ModelConfig(), item.name), Section)
        assert is_section == (item.name in SECTION_MIXERS), item.name
