"""Which files of a folder are the model, and what is said of those that are missing, damaged or of another save."""

import json
from dataclasses import replace

import jax
import ml_dtypes
import numpy as np
import pytest
from checkpoint_examples import EXAMPLES, random_params

from research.config import AttentionConfig, MlpConfig, ModelConfig
from research.pretrained import (
    CheckpointError,
    read_checkpoint,
    settings_of,
    to_hugging_face,
    write_checkpoint,
    write_safetensors,
)

MODEL = ModelConfig(vocab_size=11, width=8, depth=1, attention=AttentionConfig(2, 1, 4), mlp=MlpConfig(6))
PARAMS = random_params(MODEL)
INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def _assert_read(folder, params=PARAMS, model=MODEL):
    read_model, read = read_checkpoint(folder)
    assert read_model == model
    jax.tree.map(np.testing.assert_array_equal, read, params)


@pytest.fixture
def single(tmp_path):
    write_checkpoint(tmp_path, "llama", MODEL, PARAMS)
    return tmp_path


@pytest.fixture
def sharded(tmp_path):
    tensors = to_hugging_face(MODEL, PARAMS, "llama")
    placed = {name: SECOND if name == "lm_head.weight" else FIRST for name in tensors}
    for file in (FIRST, SECOND):
        write_safetensors(tmp_path / file, {name: tensors[name] for name in tensors if placed[name] == file})
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    (tmp_path / "config.json").write_text(json.dumps(settings_of("llama", MODEL)))
    return tmp_path


def _edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _other_values():
    return {name: value + 1 for name, value in to_hugging_face(MODEL, PARAMS, "llama").items()}


def test_shards_that_the_index_does_not_name_are_no_part_of_the_model(sharded):
    write_safetensors(sharded / "model-00003-of-00003.safetensors", _other_values())
    _assert_read(sharded)


def test_a_tensor_in_two_shards_is_the_one_that_the_index_names(sharded):
    name = "lm_head.weight"
    tensors = to_hugging_face(MODEL, PARAMS, "llama")
    write_safetensors(sharded / FIRST, {**tensors, name: tensors[name] + 1})
    _assert_read(sharded)


def test_mistrals_own_file_beside_the_model_is_not_looked_at(single):
    write_safetensors(single / "consolidated.safetensors", {"tok_embeddings.weight": np.ones((11, 8), np.float32)})
    _assert_read(single)


def test_a_missing_shard_is_named(sharded):
    (sharded / SECOND).unlink()
    with pytest.raises(CheckpointError, match=rf"{SECOND} missing: {INDEX} names 2 files"):
        read_checkpoint(sharded)


def test_two_saves_in_one_folder_are_refused(sharded):
    write_safetensors(sharded / "model.safetensors", _other_values())
    with pytest.raises(CheckpointError, match=rf"both model.safetensors and {INDEX}.*Fix: remove what is left over"):
        read_checkpoint(sharded)


def test_an_index_of_another_save_is_refused(sharded):
    placed = json.loads((sharded / INDEX).read_text())["weight_map"]
    _edit(sharded / INDEX, weight_map=placed | {"model.norm.weight": SECOND})
    with pytest.raises(CheckpointError, match=rf"{SECOND}: holds no 'model.norm.weight', which {INDEX} says"):
        read_checkpoint(sharded)
    _edit(sharded / INDEX, weight_map={"model.norm.weight": "../model.safetensors"})
    with pytest.raises(CheckpointError, match="'../model.safetensors' is no file of the folder itself"):
        read_checkpoint(sharded)
    _edit(sharded / INDEX, weight_map=None)
    with pytest.raises(CheckpointError, match="weight_map must name the file of each tensor"):
        read_checkpoint(sharded)


def test_shards_without_an_index_are_refused(sharded):
    (sharded / INDEX).unlink()
    with pytest.raises(CheckpointError, match=f"{FIRST}, .*neither model.safetensors nor {INDEX}.*Fix: copy the index"):
        read_checkpoint(sharded)


def test_pickles_are_not_read_and_the_way_to_convert_them_is_said(single):
    (single / "model.safetensors").rename(single / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError, match=r"no \.safetensors, but pytorch_model\.bin.*Fix: convert it: .*save_pretr"
    ):
        read_checkpoint(single)
    (single / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match="no model.safetensors. Fix: name a folder"):
        read_checkpoint(single)


def test_unused_and_missing_tensors_are_named_with_their_files(sharded):
    tensors = to_hugging_face(MODEL, PARAMS, "llama")
    placed = json.loads((sharded / INDEX).read_text())["weight_map"]
    write_safetensors(sharded / SECOND, {"lm_head.weight": tensors["lm_head.weight"], "score.bias": np.ones(3)})
    with pytest.raises(CheckpointError, match=f"1 of no known meaning: {SECOND}: 'score.bias'"):
        read_checkpoint(sharded)
    del placed["lm_head.weight"]
    _edit(sharded / INDEX, weight_map=placed)
    with pytest.raises(CheckpointError, match=f"1 missing in {FIRST}: 'lm_head.weight'"):
        read_checkpoint(sharded)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-5], lambda data: data[:7], lambda data: b"", lambda data: b"\xff" * 99]
)
def test_a_damaged_file_is_a_worded_error(single, damage):
    file = single / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match=r"model.safetensors: is no whole .safetensors file \(.*Fix: copy"):
        read_checkpoint(single)


def test_types_that_numpy_lacks_and_quantised_weights_are_refused(single):
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (single / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(CheckpointError, match="model.safetensors: holds a type that numpy lacks"):
        read_checkpoint(single)
    tensors = to_hugging_face(MODEL, PARAMS, "llama")
    write_safetensors(single / "model.safetensors", tensors | {"lm_head.weight": np.ones((11, 8), np.int8)})
    with pytest.raises(CheckpointError, match=r"lm_head.weight in \S+ = int8: weights of whole numbers are quantised"):
        read_checkpoint(single)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_weights_that_are_no_finite_numbers_are_named_with_their_file(sharded, value, dtype):
    head = to_hugging_face(MODEL, PARAMS, "llama")["lm_head.weight"].astype(dtype)
    head[3, 5] = value
    write_safetensors(sharded / SECOND, {"lm_head.weight": head})
    with pytest.raises(CheckpointError, match=f"lm_head.weight in {SECOND}: holds {value}, must hold finite numbers"):
        read_checkpoint(sharded)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("vocab_size", 12, r"model.embed_tokens.weight in model.safetensors = \(11, 8\): the model asks for \(12, 8\)"),
        ("num_attention_heads", 10**7, r"= \(8, 8\): the model asks for 320,000,000 numbers"),
        ("num_hidden_layers", 1000, "8991 missing in model.safetensors"),
    ],
)
def test_sizes_that_the_file_does_not_have_are_refused_before_there_is_room_for_them(single, key, value, message):
    _edit(single / "config.json", **{key: value})
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(single)


def test_a_folder_may_be_named_by_a_string(single):
    _assert_read(str(single))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, r"config.json: is no JSON \(maximum recursion depth"),
        ('{"model_type": "llama", ', r"config.json: is no JSON \("),
        (b"\xff\xfe{", r"config.json: is no JSON \("),
        ("[1, 2]", "config.json: holds list, must hold an object"),
        ("{}", "model_type = None: no such family"),
        (None, "config.json: no such file"),
    ],
)
def test_an_unreadable_config_is_a_worded_error(single, text, message):
    file = single / "config.json"
    if text is None:
        file.unlink()
    else:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(single)


HEADS = {"gpt_neox": "embed_out.weight", "rwkv": "head.weight"}


@pytest.mark.parametrize("family", EXAMPLES)
def test_a_head_of_its_own_is_used_whatever_config_json_says(family, tmp_path):
    """transformers does; a file that merely repeats the embedding stays tied."""
    model = replace(EXAMPLES[family], tied_embeddings=True)
    params, head = random_params(model), HEADS.get(family, "lm_head.weight")
    write_checkpoint(tmp_path, family, model, params)
    tensors = to_hugging_face(model, params, family)
    embedding = params["embedding"]
    write_safetensors(tmp_path / "model.safetensors", {**tensors, head: embedding})
    read_model, read = read_checkpoint(tmp_path)
    assert read_model.tied_embeddings
    assert "head" not in read
    write_safetensors(tmp_path / "model.safetensors", {**tensors, head: 2 * embedding})
    read_model, read = read_checkpoint(tmp_path)
    assert not read_model.tied_embeddings
    np.testing.assert_array_equal(read["head"], 2 * embedding.T)


def test_the_layers_that_predict_further_tokens_are_left_out_by_their_number(tmp_path):
    model = EXAMPLES["deepseek_v3"]
    params = random_params(model)
    write_checkpoint(tmp_path, "deepseek_v3", model, params)
    further = {f"model.layers.{model.depth}.eh_proj.weight": np.ones((32, 64), np.float32)}
    write_safetensors(tmp_path / "model.safetensors", to_hugging_face(model, params, "deepseek_v3") | further)
    with pytest.raises(
        CheckpointError, match=f"1 of no known meaning: model.safetensors: 'model.layers.{model.depth}.eh"
    ):
        read_checkpoint(tmp_path)  # as written, num_nextn_predict_layers is 0
    _edit(tmp_path / "config.json", num_nextn_predict_layers=1)
    jax.tree.map(np.testing.assert_array_equal, read_checkpoint(tmp_path)[1], params)
