"""The proof that one of our models is the same function as an implementation no one here wrote.

A family in research/pretrained with a class in `transformers` needs one line:
`assert_equals_oracle("llama", model)`. Another oracle is given as `build`, a function from the family's settings to a
torch module that returns logits.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from random_configs import perturbed

from research.config import ModelConfig
from research.models import language_model
from research.pretrained import from_hugging_face, settings_of, to_hugging_face
from research.training.loss import cross_entropy

Tensors = Mapping[str, np.ndarray]
BATCH, LENGTH = 2, 13
EXPERT_PARTS = {"w1": "gate", "w3": "up", "w2": "down"} | {f"{part}_proj": part for part in ("gate", "up", "down")}
LOGITS = jax.jit(language_model.logits, static_argnums=0)


def random_tokens(model: ModelConfig, batch: int = BATCH, length: int = LENGTH) -> np.ndarray:
    return np.asarray(jax.random.randint(jax.random.key(2), (batch, length), 0, model.vocab_size))


def from_transformers(settings: dict[str, Any]) -> torch.nn.Module:
    """The class that `transformers` has for a config.json; plain attention and experts, which know float64."""
    config = transformers.AutoConfig.for_model(**settings)
    return transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", experts_implementation="eager"
    )


def as_stored(tensors: Tensors) -> Tensors:
    return tensors


def stacked_experts(tensors: Tensors) -> Tensors:
    """Files hold experts one by one; the modules stack them, each gate in front of its up-projection."""
    kept, found = {}, {}
    for name, value in tensors.items():
        parts = re.fullmatch(r"(.*)\.experts\.(\d+)\.(\w+)\.weight", name)
        if parts:
            found[parts[1], EXPERT_PARTS[parts[3]], int(parts[2])] = value
        else:
            kept[name.replace(".block_sparse_moe.", ".mlp.")] = value
    for layer in dict.fromkeys(layer for layer, _, _ in found):
        numbers = range(sum(key[:2] == (layer, "down") for key in found))
        gate_up = [np.concatenate([found[layer, part, i] for part in ("gate", "up")]) for i in numbers]
        name = layer.replace(".block_sparse_moe", ".mlp") + ".experts."
        kept[name + "gate_up_proj"] = np.stack(gate_up)
        kept[name + "down_proj"] = np.stack([found[layer, "down", i] for i in numbers])
    return kept


def neox_in_memory(tensors: Tensors) -> Tensors:
    """GPT-NeoX's module has another name for the head than its checkpoints."""
    return {name.replace("embed_out", "lm_head"): value for name, value in tensors.items()}


def load(
    family: str,
    model: ModelConfig,
    params: Any,
    build: Callable[[dict], torch.nn.Module] = from_transformers,
    in_memory: Callable[[Tensors], Tensors] = as_stored,
) -> torch.nn.Module:
    """The oracle with our parameters; every one of its own must be given, tied ones and buffers apart.

    `in_memory` turns the checkpoint's tensors into those of the module, where a family stores them otherwise.
    """
    theirs = build(settings_of(family, model)).eval()
    stored = in_memory(to_hugging_face(model, params, family))
    tensors = {name: torch.tensor(value) for name, value in stored.items()}
    missing, unexpected = theirs.load_state_dict(tensors, strict=False)
    tied = set(getattr(theirs, "_tied_weights_keys", None) or ()) if model.tied_embeddings else set()
    buffers = {name for name, _ in theirs.named_buffers()}
    assert not unexpected and not set(missing) - tied - buffers, (missing, unexpected)
    return theirs


def logits_of(theirs: torch.nn.Module, tokens: np.ndarray) -> torch.Tensor:
    output = theirs(torch.tensor(tokens, dtype=torch.long), use_cache=False)
    return output if isinstance(output, torch.Tensor) else output.logits


@contextlib.contextmanager
def float64_everywhere() -> Iterator[None]:
    """jax and torch in float64, also where an oracle asks for float32 by name (rotary tables, norms, softmax, gates).

    Those casts are for speed on bfloat16 weights and no part of any architecture; they alone keep two right
    implementations from agreeing beyond float32.
    """
    names = ("float32", "float")
    kept, kept_method, kept_default = (
        [getattr(torch, name) for name in names],
        torch.Tensor.float,
        torch.get_default_dtype(),
    )
    torch.set_default_dtype(torch.float64)
    for name in names:
        setattr(torch, name, torch.float64)
    torch.Tensor.float = torch.Tensor.double
    try:
        with jax.enable_x64(True):
            yield
    finally:
        torch.Tensor.float = kept_method
        for name, value in zip(names, kept, strict=True):
            setattr(torch, name, value)
        torch.set_default_dtype(kept_default)


def assert_equals_oracle(
    family: str,
    model: ModelConfig,
    build: Callable[[dict], torch.nn.Module] = from_transformers,
    in_memory: Callable[[Tensors], Tensors] = as_stored,
    gradients: bool = True,
    scale: float = 0.1,
) -> None:
    """Logits to 1e-4 of the largest in float32 and 1e-9 in float64, gradients of the loss to 1e-3; exact round trip."""
    params, tokens = perturbed(model, scale), random_tokens(model)
    _assert_round_trip(family, model, params)
    theirs = load(family, model, params, build, in_memory)
    expected = logits_of(theirs, tokens)
    # Required: 1e-4 relative in float32. Both compute in float32, in another order of sums.
    assert_near(LOGITS(model, params, tokens), expected.detach().numpy(), 1e-4)
    if gradients:
        assert_gradients_equal(family, model, params, tokens, theirs, in_memory)
    with float64_everywhere():
        double = jax.tree.map(partial(np.asarray, dtype=np.float64), params)
        expected = logits_of(load(family, model, double, build, in_memory), tokens).detach().numpy()
        assert expected.dtype == np.float64
        # Required: 1e-9 relative in float64, seven digits beyond what a wrong epsilon or cast would leave.
        assert_near(LOGITS(replace(model, compute_dtype="float64"), double, tokens), expected, 1e-9)


def assert_gradients_equal(
    family: str,
    model: ModelConfig,
    params: Any,
    tokens: np.ndarray,
    theirs: torch.nn.Module,
    in_memory: Callable[[Tensors], Tensors] = as_stored,
) -> None:
    """The summed next-token loss to 1e-5 and its gradient by each parameter to 1e-3 of the largest entry."""
    targets = torch.tensor(tokens[:, 1:], dtype=torch.long)
    their_logits = logits_of(theirs, tokens)[:, :-1]
    loss = torch.nn.functional.cross_entropy(their_logits.flatten(0, 1), targets.flatten(), reduction="sum")
    loss.backward()

    def ours(params: Any) -> jax.Array:
        x_BLD, heads, _ = language_model.hidden(model, params, tokens[:, :-1])
        return cross_entropy(x_BLD, heads.vocabulary_DV, tokens[:, 1:], jnp.ones(targets.shape)).loss

    value, gradient = jax.jit(jax.value_and_grad(ours))(params)
    np.testing.assert_allclose(float(value), loss.item(), rtol=1e-5)
    named = dict(theirs.named_parameters())
    for name, found in in_memory(to_hugging_face(model, gradient, family)).items():
        # A router's bias is a buffer there: nothing but its own rule may move it.
        expected = named[name].grad.numpy() if name in named else np.zeros_like(found)
        assert_near(found, expected, 1e-3, name)


def assert_near(found: Any, expected: np.ndarray, relative: float, name: str = "") -> None:
    """Every entry within `relative` of the largest expected one."""
    np.testing.assert_allclose(found, expected, atol=relative * np.abs(expected).max(), rtol=0, err_msg=name)


def _assert_round_trip(family: str, model: ModelConfig, params: Any) -> None:
    back = from_hugging_face(model, to_hugging_face(model, params, family), family)
    jax.tree.map(np.testing.assert_array_equal, params, back)
