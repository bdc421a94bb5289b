"""Checkpoints of other projects: what is written reads back bit for bit, and what does not fit is refused by name."""

import json
from dataclasses import replace

import jax
import ml_dtypes
import numpy as np
import pytest
from checkpoint_examples import EXAMPLES, random_params

from research.models import language_model
from research.pretrained import (
    FAMILIES,
    CheckpointError,
    from_hugging_face,
    model_of,
    read_checkpoint,
    settings_of,
    to_hugging_face,
    write_checkpoint,
    write_safetensors,
)


@pytest.fixture(params=EXAMPLES)
def family(request):
    return request.param


def test_every_family_has_an_example():
    assert EXAMPLES.keys() == FAMILIES.keys()


@pytest.mark.parametrize("scan_layers", [False, True])
def test_a_written_folder_reads_back_bit_for_bit(family, scan_layers, tmp_path):
    model = replace(EXAMPLES[family], scan_layers=scan_layers)
    params = random_params(model)
    write_checkpoint(tmp_path, family, model, params)
    read_model, read_params = read_checkpoint(tmp_path)
    assert settings_of(family, read_model) == settings_of(family, model)
    written_out = from_hugging_face(read_model, to_hugging_face(model, params, family), family)
    jax.tree.map(np.testing.assert_array_equal, read_params, written_out)
    for name, tensor in to_hugging_face(read_model, read_params, family).items():
        np.testing.assert_array_equal(tensor, to_hugging_face(model, params, family)[name])


def test_bfloat16_shards_are_read_exactly(family, tmp_path):
    model = EXAMPLES[family]
    tensors = to_hugging_face(model, random_params(model), family)
    halves = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tensors.items()}
    (tmp_path / "config.json").write_text(json.dumps(settings_of(family, model)))
    files = {name: f"model-{i:05d}.safetensors" for i, name in enumerate(halves)}
    for name, file in files.items():
        write_safetensors(tmp_path / file, {name: halves[name]})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    model, params = read_checkpoint(tmp_path)
    for name, tensor in to_hugging_face(model, params, family).items():
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, halves[name].astype(np.float32))


def test_tensors_that_do_not_fit_are_named(family):
    model = EXAMPLES[family]
    tensors = to_hugging_face(model, random_params(model), family)
    name = sorted(tensors)[0]
    with pytest.raises(CheckpointError, match=f"1 missing: '{name}'"):
        from_hugging_face(model, {key: value for key, value in tensors.items() if key != name}, family)
    with pytest.raises(CheckpointError, match="1 of no known meaning: 'unheard_of'"):
        from_hugging_face(model, {**tensors, "unheard_of": tensors[name]}, family)
    with pytest.raises(CheckpointError, match=rf"{name} = \(3,\): the model asks for"):
        from_hugging_face(model, {**tensors, name: np.ones(3, np.float32)}, family)


def test_the_first_files_of_gpt2_leave_out_a_prefix():
    model = EXAMPLES["gpt2"]
    tensors = to_hugging_face(model, random_params(model), "gpt2")
    bare = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    read = from_hugging_face(model, {**bare, "h.0.attn.bias": np.tri(16)}, "gpt2")
    jax.tree.map(np.testing.assert_array_equal, read, random_params(model))


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
    assert model_of(settings).pattern == pattern


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
    with pytest.raises(CheckpointError, match="topk_method = 'greedy': must be 'noaux_tc'. Fix: use a checkpoint"):
        model_of(settings)


@pytest.mark.oracles
def test_transformers_reads_what_we_write_and_we_read_what_it_writes(family, tmp_path):
    if family == "rwkv7":
        pytest.skip("transformers has no RWKV-7; tests/test_oracle_rwkv7.py compares with rwkv7-hf")
    transformers = pytest.importorskip("transformers", reason="needs the oracles extra")
    torch = pytest.importorskip("torch", reason="needs the oracles extra")
    model = replace(EXAMPLES[family], depth=2)
    params = random_params(model)
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
