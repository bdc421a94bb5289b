"""No field of a family's config class in `transformers` is overlooked: each is read, refused, or changes no logits."""

import dataclasses
import inspect
from dataclasses import replace

import numpy as np
import pytest
from checkpoint_examples import EXAMPLES, random_params

from research.pretrained import FAMILIES, CheckpointError, model_of, settings_of, write_checkpoint
from research.pretrained.settings import BOOKKEEPING, Key

pytestmark = pytest.mark.oracles
torch = pytest.importorskip("torch", reason="needs the oracles extra")
transformers = pytest.importorskip("transformers", reason="needs the oracles extra")

CLASSES = [family for family in FAMILIES if family != "rwkv7"]  # which is not in transformers
TOKENS = np.arange(14).reshape(2, 7)
# Values unlike the examples', where adding to a number or turning a truth value round says too little.
OTHERS = {
    "hidden_act": ["gelu", "relu", "gelu_pytorch_tanh"],
    "activation": ["gelu_new", "silu"],
    "activation_function": ["gelu", "silu"],
    "attn_layer_period": [1],
    "expert_layer_period": [1],
    "layer_types": [["sliding_attention"] * 2],
    "mlp_only_layers": [[0]],
    "rope_parameters": [
        {"rope_type": "default", "rope_theta": 77.0},
        {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
        {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
        {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 4},
    ],
    "rope_scaling": [{"rope_type": "linear", "factor": 4.0}],
    "time_step_limit": [[0.0, 0.01]],
    "time_step_init_scheme": ["constant"],
    "summary_type": ["last"],
    "summary_activation": ["tanh"],
    "problem_type": ["regression"],
    "architectures": [["Another"]],
    "transformers_version": ["4.0.0"],
    "dtype": ["float16"],
    "id2label": [{0: "a"}],
    "label2id": [{"a": 0}],
}
# What else says the same, and is left out so that the key is looked at.
SAID_TWICE = {"rope_parameters": ("rope_theta", "rope_scaling"), "expand": ("intermediate_size",)}
# Read, but no part of the function: how many further layers the file holds.
BESIDE = {"num_nextn_predict_layers", "num_mtp_layers"}
NO_SECOND_LOOK = {"dtype", "return_dict"}  # the precision, and the form, in which `transformers` would answer


def _tiny(family):
    return replace(EXAMPLES[family], depth=2)


def _fields(family):
    """Of the family's config class, its bases included, with their defaults."""
    kind = type(transformers.AutoConfig.for_model(family))
    return {field.name: field.default for field in dataclasses.fields(kind)}


def _perturbed(key, value, default):
    if key in OTHERS:
        return OTHERS[key]
    for now in (value, default):
        if isinstance(now, bool):
            return [not now]
        if isinstance(now, int):
            return [now + 1, 2 * now] if now else [1]
        if isinstance(now, float):
            return [now * 3 + 0.25]
    return [3]


def _refused_or_changed(settings, key, value, before):
    try:
        return model_of(settings | {key: value}) != before
    except CheckpointError as error:
        assert key in str(error) or "no model of this project" in str(error), error
        return True


@pytest.mark.parametrize("family", CLASSES)
def test_defaults_are_those_of_the_config_class(family):
    fields, compared = _fields(family), 0
    for key, said in FAMILIES[family].KEYS.read.items():
        name = {"num_experts": "num_local_experts"}.get(key, key) if key not in fields else key
        if name not in fields or name == "rope_parameters":
            continue
        ours = said.default if isinstance(said, Key) else said
        theirs = fields[name]
        # null stands for what follows from other keys.
        assert ours == theirs or (ours is None and theirs is not None and _follows(family, name, theirs)), key
        compared += 1
    assert compared >= 7
    kind = type(transformers.AutoConfig.for_model(family))
    if "rope_theta" in FAMILIES[family].KEYS.read:
        assert FAMILIES[family].KEYS.read["rope_theta"] == kind.default_theta


def test_rwkv7s_defaults_and_fields_are_those_of_its_package():
    """Its config class is none of transformers' dataclasses: fields are the arguments of its constructor."""
    rwkv7_hf = pytest.importorskip("rwkv7_hf", reason="needs the oracles extra")
    keys, arguments = FAMILIES["rwkv7"].KEYS, inspect.signature(rwkv7_hf.RWKV7Config.__init__).parameters
    for key in arguments.keys() - {"self", "kwargs"}:
        assert key in {**keys.read, **keys.only, **keys.unused, **BOOKKEEPING}, key
        if key in keys.read:
            said = keys.read[key]
            default = said.default if isinstance(said, Key) else said
            assert default == arguments[key].default, key


def _follows(family, key, theirs):
    """The class's number is what its other defaults come to."""
    config = transformers.AutoConfig.for_model(family)
    heads, width = config.num_attention_heads, config.hidden_size
    return theirs == {"num_key_value_heads": heads, "head_dim": width // heads}[key]


@pytest.mark.parametrize("family", CLASSES)
def test_every_field_is_read_or_refused_or_changes_nothing(family, tmp_path):
    model = _tiny(family)
    params = random_params(model)
    write_checkpoint(tmp_path, family, model, params)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    state, expected = theirs.state_dict(), _logits(theirs)
    settings = settings_of(family, model)
    before, wrong = model_of(settings), []
    keys = FAMILIES[family].KEYS
    for key, default in _fields(family).items():
        for value in _perturbed(key, settings.get(key, default), default):
            bare = {name: said for name, said in settings.items() if name not in SAID_TWICE.get(key, ())}
            if value == settings.get(key) or key in BESIDE or _refused_or_changed(bare, key, value, before):
                continue
            assert key in keys.unused or key in BOOKKEEPING, f"{key} = {value!r} is read, and changes nothing"
            if key in NO_SECOND_LOOK or (key in BOOKKEEPING and family != "llama"):
                continue  # the keys of every family are looked at in one
            config = transformers.AutoConfig.for_model(**settings | {key: value})
            other = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
            other.load_state_dict(state)
            error = np.abs(_logits(other) - expected).max() / np.abs(expected).max()
            if error > 1e-4:  # as everywhere: float32, in another order of sums
                wrong.append((key, value, error))
    assert not wrong


def _logits(theirs):
    with torch.no_grad():
        return theirs(torch.tensor(TOKENS), use_cache=False, return_dict=True).logits.numpy()
