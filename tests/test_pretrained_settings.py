"""Every key of a config.json is read, known to change nothing, or refused by name."""

import json
import math
import re
from dataclasses import replace

import pytest
from checkpoint_examples import EXAMPLES

from research.config import AttentionConfig, MlpConfig, ModelConfig, RopeScaling
from research.pretrained import FAMILIES, CheckpointError, Usage, model_of, settings_of
from research.pretrained.settings import BOOKKEEPING, EVERYWHERE_ONLY, Key

STRETCH = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 2.0,
    "original_max_position_embeddings": 16,
}
SCALING = RopeScaling(4.0, 1.0, 2.0, 16)
ROTARY = [name for name, family in FAMILIES.items() if "rope_parameters" in family.KEYS.read]
NOT_STRETCHED = ["deepseek_v3"]


def _said(family, *without, **changes):
    settings = settings_of(family, EXAMPLES[family]) | changes
    return {key: value for key, value in settings.items() if key not in without}


def _attention(model):
    return model.latent_attention if "latent_attention" in model.layers[0] else model.attention


def test_each_key_stands_in_one_table():
    for name, family in FAMILIES.items():
        keys = family.KEYS
        tables = [keys.read, keys.only, keys.unused, keys.other_names]
        assert sum(map(len, tables)) == len({key for table in tables for key in table}), name
        assert not (keys.read.keys() | keys.only.keys()) & BOOKKEEPING.keys(), name
        assert not EVERYWHERE_ONLY.keys() & BOOKKEEPING.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_unknown_keys_and_values_of_another_kind_are_refused_by_name(family):
    with pytest.raises(CheckpointError, match=rf"logit_softcap = 30.0: is no key of '{family}' known here"):
        model_of(_said(family, logit_softcap=30.0))
    with pytest.raises(CheckpointError, match="quantization_config = .*: must be None"):
        model_of(_said(family, quantization_config={"quant_method": "fp8"}))
    for value, rule in (
        ("97", "a whole number"),
        (None, "a whole number"),
        (True, "a whole number"),
        (0, "at least 1"),
    ):
        with pytest.raises(CheckpointError, match=f"config.json: vocab_size = {value!r}: must be {rule}"):
            model_of(_said(family, vocab_size=value))
    assert model_of(_said(family, _name_or_path="x", torch_dtype="bfloat16", temperature=0.5)) == model_of(
        _said(family)
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("value", [math.nan, 10**12, 10**400, [math.nan], {"a": []}])
def test_no_value_of_any_key_is_more_than_a_worded_error(family, value):
    """Such a number may be a float where that is what the key holds, and no size."""
    for key, said in FAMILIES[family].KEYS.read.items():
        kinds = said.kinds if isinstance(said, Key) else (type(said),)
        if (value == 10**12 and float in kinds) or (isinstance(value, dict) and dict in kinds):
            continue
        with pytest.raises(CheckpointError, match=rf"config.json: {key} = .*must be .*Fix: |is no key of rope_type"):
            model_of(_said(family, **{key: value}))
    with pytest.raises(CheckpointError, match="model_type = .*: no such family"):
        model_of(_said(family) | {"model_type": value})


def test_a_whole_number_in_the_place_of_a_float_is_one():
    epsilon = model_of(_said("llama", rms_norm_eps=10**12)).norm_epsilon
    assert epsilon == 1e12 and isinstance(epsilon, float)


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("deepseek_v3", "attention_bias", True),
        ("deepseek_v3", "head_dim", 8),
        ("deepseek_v3", "num_key_value_heads", 2),
        ("deepseek_v3", "qk_head_dim", 12),
        ("falcon", "alibi", True),
        ("falcon", "apply_residual_connection_post_layernorm", True),
        ("falcon", "new_decoder_architecture", True),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True),
        ("gpt2", "scale_attn_weights", False),
        ("gpt2", "hidden_size", 64),  # transformers' other name of n_embd
        ("jamba", "mamba_proj_bias", True),
        ("llama", "rope_interleaved", True),
        ("llama", "partial_rotary_factor", 0.5),
        ("mamba", "use_bias", True),
        ("mamba", "intermediate_size", 65),
        ("mamba", "time_step_rank", "wide"),
        ("mamba2", "time_step_limit", [0.0, 1.0]),
        ("mamba2", "num_heads", 3),
        ("mistral", "layer_types", ["sliding_attention", "full_attention"] * 2),
        ("olmoe", "clip_qkv", 8.0),
        ("qwen2", "use_sliding_window", True),
        ("qwen2", "layer_types", ["sliding_attention"] * 4),
        ("qwen3_moe", "mlp_only_layers", [0]),
        ("qwen3_moe", "decoder_sparse_step", 2),
        ("rwkv", "attention_hidden_size", 64),
        ("rwkv", "intermediate_size", 65),
        ("rwkv7", "norm_bias", False),
        ("rwkv7", "value_dim", [32, 32, 32, 64]),
        ("rwkv7", "num_heads", 3),
    ],
)
def test_what_would_be_another_function_is_refused_by_name(family, key, value):
    with pytest.raises(CheckpointError, match=f"config.json: {key} = .*Fix: "):
        model_of(_said(family, **{key: value}))


def test_a_config_that_no_model_can_have_is_a_worded_error():
    with pytest.raises(CheckpointError, match=r"no model of this project: model.attention.kv_heads = 3: must divide"):
        model_of(_said("llama", num_key_value_heads=3))


def test_two_names_of_one_key_must_agree():
    assert model_of(_said("olmoe", "num_experts", num_local_experts=4)).moe.experts == 4
    with pytest.raises(CheckpointError, match="num_local_experts = 5: num_experts, which means the same, is 4"):
        model_of(_said("olmoe", num_local_experts=5))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_file_leaves_out_has_the_familys_own_default(family):
    """As the class that `transformers` has for it: tests/test_oracle_pretrained_settings.py compares all of them."""
    keys = FAMILIES[family].KEYS.read
    theta = {"mixtral": 1e6}.get(family, 1e4)
    model = model_of(_said(family, "rope_theta", "rope_parameters", "rope_scaling", "rotary_emb_base", "vocab_size"))
    if family in ROTARY:
        assert _attention(model).rope_theta == theta
    assert model.vocab_size == keys["vocab_size"]


@pytest.mark.parametrize("family", ROTARY)
def test_both_forms_of_rotary_settings_are_read(family):
    theta = "rotary_emb_base" if family == "gpt_neox" else "rope_theta"
    bare = _said(family, theta, "rope_parameters", "rope_scaling")
    new = model_of(bare | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e4}})
    assert _attention(new).rope_theta == 5e4
    assert model_of(bare | {theta: 5e4, "rope_scaling": None}) == new
    assert model_of(bare | {theta: 5e4, "rope_scaling": {"type": "default"}}) == new
    if family in NOT_STRETCHED:
        with pytest.raises(CheckpointError, match="rope_type = 'llama3': must be 'default'"):
            model_of(bare | {"rope_scaling": STRETCH})
        return
    stretched = model_of(bare | {"rope_parameters": {"rope_theta": 5e4, **STRETCH}})
    assert stretched.attention.rope_scaling == SCALING
    assert model_of(bare | {theta: 5e4, "rope_scaling": STRETCH}) == stretched


@pytest.mark.parametrize("family", ROTARY)
@pytest.mark.parametrize("form", ["rope_parameters", "rope_scaling"])
def test_other_rotary_settings_are_refused_by_name(family, form):
    bare = _said(family, "rope_parameters", "rope_scaling", "rope_theta", "rotary_emb_base")
    for kind in ("linear", "dynamic", "yarn", "longrope", ["yarn"], {}):
        refused = re.escape(f"{form}.rope_type = {kind!r}: must be 'default' or 'llama3'")
        with pytest.raises(CheckpointError, match=refused):
            model_of(bare | {form: {"rope_type": kind, "factor": 4.0}})
    with pytest.raises(CheckpointError, match=f"{form}.full_attention = .*is no key of rope_type 'default'"):
        model_of(bare | {form: {"full_attention": {"rope_theta": 5e4}}})
    with pytest.raises(CheckpointError, match=f"{form}.factor = None: is missing"):
        model_of(bare | {form: {"rope_type": "llama3"}})
    with pytest.raises(CheckpointError, match=f"{form}.rope_theta = '1e4': must be a finite number"):
        model_of(bare | {form: {"rope_theta": "1e4"}})
    if family != "gpt_neox":
        with pytest.raises(CheckpointError, match="partial_rotary_factor = 0.5: must be 1"):
            model_of(bare | {form: {"rope_type": "default", "partial_rotary_factor": 0.5}})


def test_two_forms_that_differ_are_refused():
    said = _said("llama")
    for key, value in {"rope_theta": 1e4, "rope_scaling": None}.items():
        with pytest.raises(CheckpointError, match=r"rope_(theta|scaling.rope_type) = .*which of the two is meant"):
            model_of(said | {key: value})
    with pytest.raises(CheckpointError, match=r"rope_scaling.factor = 2.0: rope_parameters.factor is 8.0"):
        model_of(said | {"rope_scaling": said["rope_scaling"] | {"factor": 2.0}})
    with pytest.raises(CheckpointError, match=r"rotary_pct = 0.5: rope_parameters.partial_rotary_factor is 0.25"):
        model_of(_said("gpt_neox", rotary_pct=0.5))


@pytest.mark.parametrize("family", ROTARY)
def test_both_forms_of_rotary_settings_are_written(family):
    """Before version 5 transformers reads the older alone, and falls back to its default without a word."""
    model, old = EXAMPLES[family], ("rope_theta", "rope_scaling", "rotary_emb_base", "rotary_pct")
    if family not in NOT_STRETCHED:
        model = replace(model, attention=replace(model.attention, rope_theta=5e4, rope_scaling=SCALING))
    settings = json.loads(json.dumps(settings_of(family, model)))
    read = model_of(settings)
    assert model_of({key: value for key, value in settings.items() if key != "rope_parameters"}) == read
    assert model_of({key: value for key, value in settings.items() if key not in old}) == read
    assert _attention(read) == _attention(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_length_and_ids_are_written_and_not_left_to_the_reader(family):
    key = FAMILIES[family].KEYS.longest
    bare = settings_of(family, EXAMPLES[family])
    assert [bare[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [None] * 3
    said = settings_of(family, EXAMPLES[family], Usage(longest=640, eos_id=1, pad_id=0))
    assert [said[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [None, 1, 0]
    assert key is None or (bare[key], said[key]) == (2**20, 640)
    assert model_of(said) == model_of(bare)


PLAIN = {"gelu_new": "gelu", "gelu_fast": "gelu", "gelu_pytorch_tanh": "gelu", "gelu": "gelu_exact", "relu": "relu"}
GATED = {"silu": "swiglu", "swish": "swiglu", "gelu_pytorch_tanh": "geglu"}


@pytest.mark.parametrize(
    ("family", "key", "names"),
    [
        ("gpt2", "activation_function", PLAIN),
        ("gpt_neox", "hidden_act", PLAIN),
        ("falcon", "activation", PLAIN),
        *((family, "hidden_act", GATED) for family in ("llama", "mistral", "qwen2", "qwen3", "olmo2")),
    ],
)
def test_activations_are_read_by_each_of_their_names(family, key, names):
    for name, ours in names.items():
        model = model_of(_said(family, **{key: name}))
        assert model.mlp.activation == ours
        assert model_of(settings_of(family, model)) == model
    with pytest.raises(CheckpointError, match=rf"{key} = 'quick_gelu': must be one of {next(iter(names))}"):
        model_of(_said(family, **{key: "quick_gelu"}))


@pytest.mark.parametrize("family", ["mixtral", "olmoe", "qwen3_moe", "deepseek_v3", "jamba", "mamba", "mamba2"])
def test_another_activation_than_silu_is_refused_where_it_is_fixed(family):
    assert model_of(_said(family, hidden_act="swish")) == model_of(_said(family))
    with pytest.raises(CheckpointError, match="hidden_act = 'gelu': must be 'silu' or 'swish'"):
        model_of(_said(family, hidden_act="gelu"))


def test_the_inner_channels_of_falcon_mamba_7b():
    """Its config.json says expand = 16 and intermediate_size = 8192 at width 4096: transformers goes by the latter."""
    model = model_of(_said("falcon_mamba", expand=16, intermediate_size=96))
    assert model.mamba.expand == 3


def test_the_heads_of_a_config_that_says_neither_heads_nor_their_size():
    bare = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1}
    assert model_of(bare).attention == AttentionConfig(4, 4, 16)
    assert model_of(bare).mlp == MlpConfig(11_008)
    assert model_of({**bare, "model_type": "qwen3"} | {"num_key_value_heads": None}).attention.head_dim == 128
    assert isinstance(model_of(bare), ModelConfig)
