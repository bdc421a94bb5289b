"""An encoder-decoder transformer equals Hugging Face's T5: bucketed distances, cross-attention, both feed-forwards."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_configs import perturbed

from research.config import AttentionConfig, MlpConfig, ModelConfig
from research.models import language_model
from research.training.loss import cross_entropy

pytestmark = pytest.mark.oracles
torch = pytest.importorskip("torch", reason="needs the oracles extra")
transformers = pytest.importorskip("transformers", reason="needs the oracles extra")
from oracle_tools import assert_near, float64_everywhere  # noqa: E402

LENGTHS, TARGET = [21, 13], 18  # of the two sources; distances reach the wide buckets
DEPTH = 2
STACKS = ("encoder", "decoder")


def _model(activation: str) -> ModelConfig:
    return ModelConfig(
        vocab_size=53,
        width=24,
        depth=2 * DEPTH,
        encoder_depth=DEPTH,
        pattern="attention:mlp -> attention, cross_attention:mlp",
        source_length=max(LENGTHS),
        attention=AttentionConfig(3, 3, 16, positions="buckets", buckets=8, longest_distance=20),
        mlp=MlpConfig(40, activation=activation),
        norm_epsilon=1e-6,
    )


def _theirs(model: ModelConfig, params: dict):
    cfg = model.attention
    theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=model.vocab_size, d_model=model.width, d_kv=cfg.head_dim, d_ff=model.mlp.hidden, num_layers=DEPTH,
        num_decoder_layers=DEPTH, num_heads=cfg.heads, relative_attention_num_buckets=cfg.buckets,
        relative_attention_max_distance=cfg.longest_distance, dropout_rate=0.0, layer_norm_epsilon=model.norm_epsilon,
        feed_forward_proj={"relu": "relu", "geglu": "gated-gelu"}[model.mlp.activation], tie_word_embeddings=False,
    )).eval()  # fmt: skip
    tensors = {name: torch.tensor(np.asarray(value)) for name, value in _renamed(model, params).items()}
    # transformers makes the head the embedding's own tensor whatever the config says; published models have both.
    theirs.lm_head = torch.nn.Linear(model.width, model.vocab_size, bias=False)
    missing, unexpected = theirs.load_state_dict(tensors, strict=False)
    assert not unexpected and set(missing) <= {f"{stack}.embed_tokens.weight" for stack in STACKS}
    for stack in STACKS:
        getattr(theirs, stack).embed_tokens = theirs.shared
    return theirs


def _renamed(model: ModelConfig, params: dict) -> dict:
    """Ours under T5's names. T5 leaves out 1 / sqrt(K), so its queries carry it: 1/4 here, which loses no bit."""
    named = {"shared.weight": params["embedding"], "lm_head.weight": params["head"].T}
    for stack, tree in (("encoder", params["encoder"]), ("decoder", params)):
        named[f"{stack}.final_layer_norm.weight"] = tree["final_norm"]["gain"]
        named[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = tree["distances"]
    for i in range(DEPTH):
        layers = params["encoder"][f"period{i}"]
        block = f"encoder.block.{i}.layer."
        named |= _attention(f"{block}0.SelfAttention", layers["layer0_mixer"])
        named |= _feed_forward(f"{block}1.DenseReluDense", layers["layer0_channel"])
        named |= {f"{block}{j}.layer_norm.weight": layers[f"layer0_{part}_norm"]["gain"]
                  for j, part in enumerate(("mixer", "channel"))}  # fmt: skip
        layers, block = params[f"period{i}"], f"decoder.block.{i}.layer."
        named |= _attention(f"{block}0.SelfAttention", layers["layer0_mixer"])
        named |= _attention(f"{block}1.EncDecAttention", layers["layer1_mixer"])
        named |= _feed_forward(f"{block}2.DenseReluDense", layers["layer1_channel"])
        named |= {f"{block}{j}.layer_norm.weight": layers[f"{part}_norm"]["gain"]
                  for j, part in enumerate(("layer0_mixer", "layer1_mixer", "layer1_channel"))}  # fmt: skip
    return named


def _attention(prefix: str, part: dict) -> dict:
    D, _, K = part["query"].shape
    return {
        f"{prefix}.q.weight": part["query"].reshape(D, -1).T * K**-0.5,
        f"{prefix}.k.weight": part["key"].reshape(D, -1).T,
        f"{prefix}.v.weight": part["value"].reshape(D, -1).T,
        f"{prefix}.o.weight": part["out"].reshape(-1, D).T,
    }


def _feed_forward(prefix: str, part: dict) -> dict:
    if "gate" not in part:
        return {f"{prefix}.wi.weight": part["up"].T, f"{prefix}.wo.weight": part["down"].T}
    names = {"wi_0": "gate", "wi_1": "up", "wo": "down"}
    return {f"{prefix}.{theirs}.weight": part[ours].T for theirs, ours in names.items()}


def _inputs():
    generator = np.random.default_rng(0)
    tokens, targets = generator.integers(0, 53, (2, 2, TARGET))
    return tokens, targets, generator.integers(0, 53, (2, max(LENGTHS)))


def _ours(model: ModelConfig, params, tokens, sources):
    mask = jnp.arange(sources.shape[1])[None] < jnp.array(LENGTHS)[:, None]
    x_BLD, heads, _ = language_model.hidden(model, params, jnp.asarray(tokens), sources=(jnp.asarray(sources), mask))
    return x_BLD, heads.vocabulary_DV


def _their_logits(theirs, tokens, sources):
    mask = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
    return theirs(
        input_ids=torch.tensor(sources), attention_mask=mask.long(), decoder_input_ids=torch.tensor(tokens),
        use_cache=False,
    ).logits  # fmt: skip


@pytest.mark.parametrize("activation", ["relu", "geglu"])
def test_logits_and_gradients_equal_t5(activation):
    model = _model(activation)
    params, (tokens, targets, sources) = perturbed(model), _inputs()
    theirs = _theirs(model, params)
    expected = _their_logits(theirs, tokens, sources)
    x_BLD, head_DV = _ours(model, params, tokens, sources)
    assert_near(x_BLD @ head_DV, expected.detach().numpy(), 1e-4)  # required, relative, in float32

    loss = torch.nn.functional.cross_entropy(expected.flatten(0, 1), torch.tensor(targets.ravel()), reduction="sum")
    loss.backward()

    def ours(params):
        return cross_entropy(*_ours(model, params, tokens, sources), jnp.asarray(targets), jnp.ones((2, TARGET))).loss

    value, gradient = jax.value_and_grad(ours)(params)
    assert float(value) == pytest.approx(loss.item(), rel=1e-5)
    for name, found in _renamed(model, gradient).items():
        factor = (
            model.attention.head_dim if name.endswith(".q.weight") else 1
        )  # the chain rule undoes 1 / sqrt(K) twice
        assert_near(factor * found, theirs.get_parameter(name).grad.numpy(), 1e-3, name)


@pytest.mark.parametrize("activation", ["relu", "geglu"])
def test_logits_equal_t5_in_float64(activation):
    params, (tokens, _, sources) = perturbed(_model(activation)), _inputs()
    with float64_everywhere():
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        model = replace(_model(activation), compute_dtype="float64")
        expected = _their_logits(_theirs(model, params).double(), tokens, sources).detach().numpy()
        x_BLD, head_DV = _ours(model, params, tokens, sources)
        assert_near(x_BLD @ head_DV, expected, 1e-9)
