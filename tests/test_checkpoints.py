"""Checkpoints of other projects: what is written reads back bit for bit, and what does not fit is refused by name."""

import json
from dataclasses import replace

import jax
import ml_dtypes
import numpy as np
import pytest

from research.config import (
    AttentionConfig,
    LatentAttentionConfig,
    Mamba2Config,
    MambaConfig,
    MlpConfig,
    ModelConfig,
    MoeConfig,
    RopeScaling,
    Rwkv4Config,
    Rwkv7Config,
)
from research.models import language_model
from research.pretrained import (
    FAMILIES,
    CheckpointError,
    from_hugging_face,
    read_checkpoint,
    settings_of,
    to_hugging_face,
    write_checkpoint,
    write_safetensors,
)
from research.pretrained.tensors import shapes, unflatten

SMALL = {"vocab_size": 97, "width": 32, "depth": 4}
MULTI_HEAD = {**SMALL, "norm": "layer"}
EXAMPLES = {
    "deepseek_v3": ModelConfig(
        **SMALL,
        pattern="latent_attention:mlp | latent_attention:moe",
        latent_attention=LatentAttentionConfig(4, 6, 4, 10, 12, 14),
        mlp=MlpConfig(48),
        moe=MoeConfig(
            6, 3, 20, shared_experts=2, scores="sigmoid", gate_scale=2.5, groups=3, active_groups=2, bias_rate=1e-2
        ),
    ),
    "falcon": ModelConfig(
        **MULTI_HEAD,
        attention=AttentionConfig(4, 1, 8),
        mlp=MlpConfig(48, "gelu_exact"),
        parallel_mixers=True,
        shared_norm=True,
    ),
    "falcon_mamba": ModelConfig(**SMALL, pattern="mamba", mamba=MambaConfig(4, inner_norms="fixed")),
    "gpt2": ModelConfig(
        **MULTI_HEAD,
        attention=AttentionConfig(4, 4, 8, positions="none", biases="all"),
        mlp=MlpConfig(48, "gelu", biases=True),
        max_positions=16,
        tied_embeddings=True,
    ),
    "gpt_neox": ModelConfig(
        **MULTI_HEAD,
        attention=AttentionConfig(4, 4, 8, rope_fraction=0.25, biases="all"),
        mlp=MlpConfig(48, "gelu_exact", biases=True),
        parallel_mixers=True,
    ),
    "jamba": ModelConfig(
        **SMALL,
        pattern="mamba:moe, attention:mlp",
        attention=AttentionConfig(4, 2, 8, positions="none"),
        mlp=MlpConfig(48),
        moe=MoeConfig(3, 2, 48, renormalize=False, algorithm="ragged", balance_loss=0.0),
        mamba=MambaConfig(4, inner_norms="learned"),
        norm_epsilon=1e-6,
    ),
    "llama": ModelConfig(
        **SMALL, attention=AttentionConfig(4, 2, 8, rope_theta=5e5, rope_scaling=RopeScaling()), mlp=MlpConfig(48)
    ),
    "mamba": ModelConfig(**SMALL, pattern="mamba", mamba=MambaConfig(4, step_rank=3, algorithm="sequential")),
    "mamba2": ModelConfig(**SMALL, pattern="mamba2", mamba2=Mamba2Config(4, head_dim=8, groups=2, chunk=16)),
    "mistral": ModelConfig(**SMALL, attention=AttentionConfig(4, 2, 8, window=5), mlp=MlpConfig(48)),
    "mixtral": ModelConfig(
        **SMALL, pattern="attention:moe", attention=AttentionConfig(4, 2, 8), moe=MoeConfig(3, 2, 20, balance_loss=0.5)
    ),
    "olmoe": ModelConfig(
        **SMALL,
        pattern="attention:moe",
        attention=AttentionConfig(4, 2, 8, qk_norm="full"),
        moe=MoeConfig(4, 3, 20, renormalize=False),
    ),
    "qwen3_moe": ModelConfig(
        **SMALL, pattern="attention:moe", attention=AttentionConfig(4, 2, 12, qk_norm="head"), moe=MoeConfig(4, 2, 20)
    ),
    "olmo2": ModelConfig(
        **SMALL, attention=AttentionConfig(4, 2, 8, qk_norm="full"), mlp=MlpConfig(48), norm_placement="post"
    ),
    "qwen2": ModelConfig(**SMALL, attention=AttentionConfig(4, 2, 8, biases="qkv"), mlp=MlpConfig(48)),
    "qwen3": ModelConfig(**SMALL, attention=AttentionConfig(4, 2, 12, qk_norm="head"), mlp=MlpConfig(48)),
    "rwkv": ModelConfig(
        **SMALL, pattern="rwkv4_time:rwkv4_channel", rwkv4=Rwkv4Config(2), norm="layer", embedding_norm=True
    ),
    "rwkv7": ModelConfig(
        **SMALL,
        pattern="rwkv7_first:rwkv7_channel | rwkv7_time:rwkv7_channel",
        rwkv7=Rwkv7Config(8, 2, 3, 4, 5, 6, chunk=8),
        norm="layer",
        embedding_norm=True,
    ),
}


@pytest.fixture(params=EXAMPLES)
def family(request):
    return request.param


def _params(model):
    rng = np.random.default_rng(0)
    return unflatten(model, {path: rng.normal(size=size).astype(np.float32) for path, size in shapes(model).items()})


def test_every_family_has_an_example():
    assert EXAMPLES.keys() == FAMILIES.keys()


@pytest.mark.parametrize("scan_layers", [False, True])
def test_a_written_folder_reads_back_bit_for_bit(family, scan_layers, tmp_path):
    model = replace(EXAMPLES[family], scan_layers=scan_layers)
    params = _params(model)
    write_checkpoint(tmp_path, family, model, params)
    read_model, read_params = read_checkpoint(tmp_path)
    assert settings_of(family, read_model) == settings_of(family, model)
    written_out = from_hugging_face(read_model, to_hugging_face(model, params, family), family)
    jax.tree.map(np.testing.assert_array_equal, read_params, written_out)
    for name, tensor in to_hugging_face(read_model, read_params, family).items():
        np.testing.assert_array_equal(tensor, to_hugging_face(model, params, family)[name])


def test_bfloat16_shards_are_read_exactly(family, tmp_path):
    model = EXAMPLES[family]
    tensors = to_hugging_face(model, _params(model), family)
    halves = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tensors.items()}
    (tmp_path / "config.json").write_text(json.dumps(settings_of(family, model)))
    for i, name in enumerate(halves):
        write_safetensors(tmp_path / f"model-{i:05d}.safetensors", {name: halves[name]})
    model, params = read_checkpoint(tmp_path)
    for name, tensor in to_hugging_face(model, params, family).items():
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, halves[name].astype(np.float32))


def test_tensors_that_do_not_fit_are_named(family):
    model = EXAMPLES[family]
    tensors = to_hugging_face(model, _params(model), family)
    name = sorted(tensors)[0]
    with pytest.raises(CheckpointError, match=f"1 missing, the first '{name}'"):
        from_hugging_face(model, {key: value for key, value in tensors.items() if key != name}, family)
    with pytest.raises(CheckpointError, match="1 of no known meaning, the first 'unheard_of'"):
        from_hugging_face(model, {**tensors, "unheard_of": tensors[name]}, family)
    with pytest.raises(CheckpointError, match=rf"{name} = \(3,\): the model asks for"):
        from_hugging_face(model, {**tensors, name: np.ones(3, np.float32)}, family)


def test_the_first_files_of_gpt2_leave_out_a_prefix():
    model = EXAMPLES["gpt2"]
    tensors = to_hugging_face(model, _params(model), "gpt2")
    bare = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    read = from_hugging_face(model, {**bare, "h.0.attn.bias": np.tri(16)}, "gpt2")
    jax.tree.map(np.testing.assert_array_equal, read, _params(model))


def test_a_model_the_family_cannot_say_is_refused():
    model = EXAMPLES["llama"]
    with pytest.raises(CheckpointError, match=r"model.norm = 'layer': a llama checkpoint can only say 'rms'"):
        settings_of("llama", replace(model, norm="layer"))
    with pytest.raises(CheckpointError, match=r"model_type = 'lama': no such family. Known: .*llama"):
        settings_of("lama", model)


@pytest.mark.parametrize(
    ("dense", "pattern"),
    [
        (0, "latent_attention:moe"),
        (3, "3 * latent_attention:mlp | latent_attention:moe"),
        (4, "latent_attention:mlp"),
    ],
)
def test_deepseeks_first_layers_are_dense(dense, pattern):
    settings = settings_of("deepseek_v3", replace(EXAMPLES["deepseek_v3"], pattern=pattern))
    assert settings["first_k_dense_replace"] == dense
    assert FAMILIES["deepseek_v3"].from_settings(settings).pattern == pattern


def test_deepseeks_prediction_of_a_second_token_is_left_out():
    model = EXAMPLES["deepseek_v3"]
    tensors = to_hugging_face(model, _params(model), "deepseek_v3")
    read = from_hugging_face(model, {**tensors, "model.layers.61.eh_proj.weight": np.ones((32, 64))}, "deepseek_v3")
    jax.tree.map(np.testing.assert_array_equal, read, _params(model))


def test_another_routing_than_deepseeks_is_refused():
    model = EXAMPLES["deepseek_v3"]
    refused = {
        r"layers = \(\('latent_attention', 'moe'\), .*can only say": {
            "pattern": "latent_attention:moe, latent_attention:mlp"
        },
        "moe.bias_rate = None": {"moe": replace(model.moe, bias_rate=None)},
        "moe.scores = 'softmax'": {"moe": replace(model.moe, scores="softmax")},
    }
    for message, fields in refused.items():
        with pytest.raises(CheckpointError, match=message):
            settings_of("deepseek_v3", replace(model, **fields))
    settings = {**settings_of("deepseek_v3", model), "topk_method": "greedy"}
    with pytest.raises(ValueError, match="topk_method = 'greedy': must be 'noaux_tc'. Fix: use a model routed as"):
        FAMILIES["deepseek_v3"].from_settings(settings)


@pytest.mark.oracles
def test_transformers_reads_what_we_write_and_we_read_what_it_writes(family, tmp_path):
    if family == "rwkv7":
        pytest.skip("transformers has no RWKV-7; tests/test_oracle_rwkv7.py compares with rwkv7-hf")
    transformers = pytest.importorskip("transformers", reason="needs the oracles extra")
    torch = pytest.importorskip("torch", reason="needs the oracles extra")
    model = replace(EXAMPLES[family], depth=2)
    params = _params(model)
    write_checkpoint(tmp_path / "ours", family, model, params)
    theirs, found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(found.values()), found  # nothing missing, nothing of another shape
    theirs.save_pretrained(tmp_path / "theirs")
    read_model, read_params = read_checkpoint(tmp_path / "theirs")
    assert settings_of(family, read_model) == settings_of(family, model)
    jax.tree.map(np.testing.assert_array_equal, read_params, params)
    tokens = np.arange(14).reshape(2, 7) % model.vocab_size
    logits = jax.jit(language_model.logits, static_argnums=0)(read_model, read_params, tokens)
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


def test_another_activation_is_refused(tmp_path):
    model = ModelConfig(**SMALL)
    write_checkpoint(tmp_path, "llama", model, language_model.init(model, jax.random.key(0)))
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "hidden_act": "gelu"}))
    with pytest.raises(CheckpointError, match=r"hidden_act = 'gelu': checkpoints of llama are read with 'silu'"):
        read_checkpoint(tmp_path)
