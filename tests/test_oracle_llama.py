"""Logits, loss and gradients equal Hugging Face's LlamaForCausalLM, an implementation no one here wrote."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.model_config import AttentionConfig, MlpConfig, ModelConfig
from research.models import language_model
from research.training.loss import cross_entropy

pytestmark = pytest.mark.oracles
torch = pytest.importorskip("torch", reason="needs the oracles extra")
transformers = pytest.importorskip("transformers", reason="needs the oracles extra")

CASES = {
    "multi-head": {},
    "grouped": {"attention": AttentionConfig(4, 2, 8, rope_theta=5e5)},
    "tied": {"tied_embeddings": True},
    "wide-heads": {"attention": AttentionConfig(2, 1, 24)},
}


def _model(**fields) -> ModelConfig:
    return ModelConfig(**{
        "vocab_size": 97, "width": 32, "depth": 3, "attention": AttentionConfig(4, 4, 8), "mlp": MlpConfig(64), **fields
    })  # fmt: skip


def _perturbed(model: ModelConfig) -> dict:
    """Every parameter moved off its start, so that no one or zero hides a swapped or missing factor."""
    params = language_model.init(model, jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [leaf + 0.1 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    return structure.unflatten(moved)


def _theirs(model: ModelConfig, params: dict):
    cfg = model.attention
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=model.vocab_size, hidden_size=model.width, intermediate_size=model.mlp.hidden,
        num_hidden_layers=model.depth, num_attention_heads=cfg.heads, num_key_value_heads=cfg.kv_heads,
        head_dim=cfg.head_dim, rms_norm_eps=model.norm_epsilon, tie_word_embeddings=model.tied_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": cfg.rope_theta}, attn_implementation="eager",
    )).eval()  # fmt: skip
    theirs.load_state_dict({name: torch.tensor(np.asarray(value)) for name, value in _renamed(model, params).items()})
    return theirs


def _renamed(model: ModelConfig, params: dict) -> dict:
    """Our parameters (or their gradients) under Hugging Face's names: linear layers store (out, in)."""
    V, D = model.vocab_size, model.width
    named = {"model.embed_tokens.weight": params["embedding"], "model.norm.weight": params["final_norm"]["gain"]}
    named["lm_head.weight"] = params["embedding"] if model.tied_embeddings else params["head"].T
    assert named["lm_head.weight"].shape == (V, D)
    for i in range(model.depth):
        period, prefix = params[f"period{i}"], f"model.layers.{i}."
        mixer, mlp = period["layer0_mixer"], period["layer0_channel"]
        named[prefix + "input_layernorm.weight"] = period["layer0_mixer_norm"]["gain"]
        named[prefix + "post_attention_layernorm.weight"] = period["layer0_channel_norm"]["gain"]
        for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v")):
            named[f"{prefix}self_attn.{theirs}_proj.weight"] = mixer[ours].reshape(D, -1).T
        named[prefix + "self_attn.o_proj.weight"] = mixer["out"].reshape(-1, D).T
        for name in ("gate", "up", "down"):
            named[f"{prefix}mlp.{name}_proj.weight"] = mlp[name].T
    return named


@pytest.mark.parametrize("case", CASES)
def test_logits_loss_and_gradients_equal_llama(case):
    model = _model(**CASES[case])
    params = _perturbed(model)
    theirs = _theirs(model, params)
    tokens = np.asarray(jax.random.randint(jax.random.key(2), (2, 13), 0, model.vocab_size))

    output = theirs(torch.tensor(tokens, dtype=torch.long))
    expected = output.logits.detach().numpy()
    logits = language_model.logits(model, params, tokens)
    # Required: 1e-4 relative in float32. Both compute in float32, in another order of sums.
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)

    targets = torch.tensor(tokens[:, 1:], dtype=torch.long)
    loss = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), targets.flatten(), reduction="sum")
    loss.backward()

    def ours(params):
        x_BLD, head_DV = language_model.hidden(model, params, tokens[:, :-1])
        return cross_entropy(x_BLD, head_DV, tokens[:, 1:], jnp.ones((2, 12))).loss

    value, gradient = jax.value_and_grad(ours)(params)
    assert float(value) == pytest.approx(loss.item(), rel=1e-5)
    for name, found in _renamed(model, gradient).items():
        want = theirs.get_parameter(name).grad.numpy()
        np.testing.assert_allclose(found, want, atol=1e-3 * np.abs(want).max(), rtol=0, err_msg=name)
