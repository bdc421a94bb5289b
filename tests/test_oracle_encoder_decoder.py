"""Recurrent encoder-decoders equal torch's LSTM and GRU, with the two attentions written out over torch's cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_configs import perturbed

from research.config import ModelConfig
from research.models import language_model
from research.training.loss import cross_entropy

pytestmark = pytest.mark.oracles
torch = pytest.importorskip("torch", reason="needs the oracles extra")
from oracle_tools import assert_near, float64_everywhere  # noqa: E402

PATTERNS = [
    *("lstm -> lstm", "lstm -> lstm_additive", "lstm -> lstm_multiplicative"),
    *("gru -> gru", "gru -> gru_additive", "gru -> gru_multiplicative"),
]
LENGTHS = [7, 4]  # of the two sources; the second is padded
TARGET = 5


def _model(pattern: str, **fields) -> ModelConfig:
    return ModelConfig(vocab_size=23, width=10, depth=1, pattern=pattern, source_length=max(LENGTHS), **fields)


def _inputs(model: ModelConfig):
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, model.vocab_size, (2, TARGET))
    return tokens, generator.integers(0, model.vocab_size, (2, max(LENGTHS))), generator.integers(0, 23, (2, TARGET))


def _ours(model: ModelConfig, params, tokens, sources):
    mask = jnp.arange(sources.shape[1])[None] < jnp.array(LENGTHS)[:, None]
    x_BLD, heads, _ = language_model.hidden(model, params, jnp.asarray(tokens), sources=(jnp.asarray(sources), mask))
    return x_BLD, heads.vocabulary_DV


def _gates(*weights):
    """Ours (in, gates, out), one or several beside each other, as torch's (gates * out, in)."""
    return torch.cat([w.permute(1, 2, 0).reshape(-1, w.shape[0]) for w in weights], dim=1)


def _cell(kind: str, part: dict, *inputs: str):
    """torch's cell with our weights, which keep their gradients: `functional_call` sets nothing in place."""
    inner = part["recurrent"].shape[0]
    cell = getattr(torch.nn, f"{kind.upper()}Cell")(len(inputs) * inner, inner)
    weights = {
        "weight_ih": _gates(*(part[name] for name in inputs)),
        "weight_hh": _gates(part["recurrent"]),
        "bias_ih": part["input_bias"].reshape(-1),
        "bias_hh": part["recurrent_bias"].reshape(-1),
    }
    return lambda x, state: torch.func.functional_call(cell, weights, (x, state))


def _rms(x, gain, epsilon):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + epsilon) * gain


def _theirs(model: ModelConfig, params: dict, tokens, sources):
    """Logits of torch; one sequence after another, so that no source has any padding."""
    kind, decoder = (part.strip() for part in model.pattern.split("->"))
    return torch.stack(
        [_one(model, kind, decoder.partition("_")[2], params, tokens[i], sources[i, : LENGTHS[i]]) for i in range(2)]
    )


def _one(model: ModelConfig, kind: str, score: str, params: dict, tokens, sources):
    table, epsilon = params["embedding"], model.norm_epsilon
    encoder, part = params["encoder"]["period0"], params["period0"]["layer0_mixer"]
    x_SD = table[sources]
    source_SD, state = _run(kind, encoder["layer0_mixer"], _rms(x_SD, encoder["layer0_mixer_norm"]["gain"], epsilon))
    source_SD = _rms(x_SD + source_SD, params["encoder"]["final_norm"]["gain"], epsilon)
    x_LD = table[tokens]
    normed_LD = _rms(x_LD, params["period0"]["layer0_mixer_norm"]["gain"], epsilon)
    if score:
        y_LD = _attend(kind, score, part, normed_LD, state, source_SD)
    else:
        y_LD, _ = _run(kind, part, normed_LD, state)
    return _rms(x_LD + y_LD, params["final_norm"]["gain"], epsilon) @ params["head"]


def _hidden(state):
    return state[0] if isinstance(state, tuple) else state


def _run(kind: str, part: dict, x_LD, state=None):
    """All outputs of torch's cell over one sequence, and its last state."""
    cell, outputs = _cell(kind, part, "input"), []
    for x_D in x_LD:
        state = cell(x_D, state)
        outputs.append(_hidden(state))
    return torch.stack(outputs), state


def _attend(kind: str, score: str, part: dict, x_LD, state, source_SD):
    """Equations of Bahdanau 2015 (section 3.1, appendix A) and Luong 2015 (3.1, 3.3), a step and a source at a time."""
    cell, outputs = _cell(kind, part, "input", "fed"), []
    keys_SP, fed_P = source_SD @ part["key"], torch.zeros_like(x_LD[0])
    for x_D in x_LD:
        if score == "additive":
            query_P = _hidden(state) @ part["query"]
            energies = [torch.dot(part["vector"], torch.tanh(query_P + key_P)) for key_P in keys_SP]
            fed_P = sum(a * h_D for a, h_D in zip(torch.softmax(torch.stack(energies), 0), source_SD, strict=True))
            state = cell(torch.cat([x_D, fed_P]), state)
            outputs.append(torch.cat([_hidden(state), fed_P]) @ part["out"])
        else:
            state = cell(torch.cat([x_D, fed_P]), state)
            energies = torch.stack([torch.dot(_hidden(state), key_P) for key_P in keys_SP])
            context_D = sum(a * h_D for a, h_D in zip(torch.softmax(energies, 0), source_SD, strict=True))
            fed_P = torch.tanh(torch.cat([_hidden(state), context_D]) @ part["out"])
            outputs.append(fed_P)
    return torch.stack(outputs)


def _tensors(params):
    return jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf), requires_grad=True), params)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_logits_and_gradients_equal_torch(pattern):
    model = _model(pattern)
    params, (tokens, sources, targets) = perturbed(model, scale=0.3), _inputs(model)
    tensors = _tensors(params)
    expected = _theirs(model, tensors, torch.tensor(tokens), torch.tensor(sources))
    x_BLD, head_DV = _ours(model, params, tokens, sources)
    assert_near(x_BLD @ head_DV, expected.detach().numpy(), 1e-4)  # required, relative, in float32

    loss = torch.nn.functional.cross_entropy(expected.flatten(0, 1), torch.tensor(targets.ravel()), reduction="sum")
    loss.backward()

    def ours(params):
        return cross_entropy(*_ours(model, params, tokens, sources), jnp.asarray(targets), jnp.ones((2, TARGET))).loss

    value, gradient = jax.value_and_grad(ours)(params)
    assert float(value) == pytest.approx(loss.item(), rel=1e-5)
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    for (path, found), want in zip(leaves, jax.tree.leaves(tensors), strict=True):
        if want.grad is None:  # of the encoder's last norm: without attention nobody reads what it writes
            assert "encoder" in str(path) and "_" not in pattern and not found.any()
        else:
            assert_near(found, want.grad.numpy(), 1e-3, str(path))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_logits_equal_torch_in_float64(pattern):
    params, model = perturbed(_model(pattern), scale=0.3), _model(pattern, compute_dtype="float64")
    tokens, sources, _ = _inputs(model)
    with float64_everywhere():
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        expected = _theirs(model, _tensors(params), torch.tensor(tokens), torch.tensor(sources)).detach().numpy()
        x_BLD, head_DV = _ours(model, params, tokens, sources)
        assert_near(x_BLD @ head_DV, expected, 1e-9)
