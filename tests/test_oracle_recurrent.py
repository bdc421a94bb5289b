"""LSTM and GRU are torch.nn's: outputs, last states and every gradient, alone and as layers of a language model."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.config import ModelConfig
from research.models import language_model
from research.models.recurrent import lstm_gru
from research.models.recurrent.lstm_gru import GruState, LstmState, gru_cell, lstm_cell

pytestmark = pytest.mark.oracles
torch = pytest.importorskip("torch", reason="needs the oracles extra")
pytest.importorskip("transformers", reason="needs the oracles extra")
from oracle_tools import assert_near, random_tokens  # noqa: E402
from random_configs import perturbed  # noqa: E402

B, L, D, P = 3, 9, 7, 5
CELLS = {"lstm": (lstm_cell, 4), "gru": (gru_cell, 3)}
# Required: 1e-4 and 1e-9 relative. Everything here is of order one, so the tolerances are absolute ones.
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}

MODEL = ModelConfig(vocab_size=61, width=24, depth=2, pattern="lstm, gru", norm="layer", embedding_norm=True)


def torch_logits(model, params, tokens):
    """The language model written with torch.nn alone, our parameters in it."""
    norm = {name: [torch.tensor(np.asarray(leaf)) for leaf in (group["gain"], group["bias"])] for name, group in (
        ("embedding", params["embedding_norm"]), ("final", params["final_norm"]),
        *((f"{i}", params["period0"][f"layer{i}_mixer_norm"]) for i in (0, 1)),
    )}  # fmt: skip

    def normed(name, x):
        return torch.nn.functional.layer_norm(x, (model.width,), *norm[name], eps=model.norm_epsilon)

    table, head = (torch.tensor(np.asarray(params[name])) for name in ("embedding", "head"))
    x = normed("embedding", table[torch.tensor(tokens)])
    for i, make in enumerate((torch.nn.LSTM, torch.nn.GRU)):
        layer = make(model.width, model.width, batch_first=True, dtype=table.dtype)
        ours = params["period0"][f"layer{i}_mixer"]
        layer.load_state_dict({
            theirs: torch.tensor(np.asarray(ours[name]).reshape(rows, -1).T.squeeze())
            for name, theirs, rows in (
                ("input", "weight_ih_l0", model.width), ("recurrent", "weight_hh_l0", model.width),
                ("input_bias", "bias_ih_l0", 1), ("recurrent_bias", "bias_hh_l0", 1),
            )
        })  # fmt: skip
        x = x + layer(normed(str(i), x))[0]
    return normed("final", x) @ head


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_language_model_equals_torch(dtype):
    params = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), perturbed(MODEL))
    tokens = random_tokens(MODEL)
    expected = torch_logits(MODEL, params, tokens).detach().numpy()
    with jax.enable_x64(dtype == "float64"):
        logits = jax.jit(language_model.logits, static_argnums=0)(replace(MODEL, compute_dtype=dtype), params, tokens)
    assert expected.dtype == logits.dtype == dtype
    assert_near(logits, expected, TOLERANCE[dtype])


def _ours(kind, weights, x, start):
    cell, gates = CELLS[kind]
    input_DnP = weights["weight_ih_l0"].T.reshape(D, gates, P)
    input_BLnP = jnp.einsum("bld,dnp->blnp", x, input_DnP) + weights["bias_ih_l0"].reshape(1, 1, gates, P)
    weight_PnP = weights["weight_hh_l0"].T.reshape(P, gates, P)
    state = LstmState(*start) if kind == "lstm" else GruState(start[0])
    hidden_BLP, state = lstm_gru.run(cell, input_BLnP, state, weight_PnP, weights["bias_hh_l0"].reshape(gates, P))
    return hidden_BLP, jax.tree.leaves(state)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", CELLS)
def test_outputs_states_and_gradients_equal_torch(kind, dtype):
    rng = np.random.default_rng(0)
    x, coefficients = rng.normal(size=(B, L, D)).astype(dtype), rng.normal(size=(B, L, P)).astype(dtype)
    start = [rng.normal(size=(B, P)).astype(dtype) for _ in range(2 if kind == "lstm" else 1)]
    theirs = (torch.nn.LSTM if kind == "lstm" else torch.nn.GRU)(D, P, batch_first=True, dtype=getattr(torch, dtype))
    weights = {name: weight.detach().numpy() for name, weight in theirs.named_parameters()}
    inputs = torch.tensor(x, requires_grad=True)
    first = [torch.tensor(state[None], requires_grad=True) for state in start]
    expected, last = theirs(inputs, tuple(first) if kind == "lstm" else first[0])
    (expected * torch.tensor(coefficients)).sum().backward()

    def loss(weights, x, start):
        hidden_BLP, state = _ours(kind, weights, x, start)
        return (hidden_BLP * coefficients).sum(), (hidden_BLP, state)

    with jax.enable_x64(dtype == "float64"):
        found, (hidden_BLP, state) = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(weights, x, start)
    atol = TOLERANCE[dtype]
    np.testing.assert_allclose(hidden_BLP, expected.detach().numpy(), atol=atol, rtol=0)
    for ours, other in zip(state, last if kind == "lstm" else [last]):
        np.testing.assert_allclose(ours, other[0].detach().numpy(), atol=atol, rtol=0)
    for name, weight in theirs.named_parameters():
        np.testing.assert_allclose(found[0][name], weight.grad.numpy(), atol=10 * atol, rtol=0, err_msg=name)
    np.testing.assert_allclose(found[1], inputs.grad.numpy(), atol=atol, rtol=0)
    for ours, other in zip(found[2], first):
        np.testing.assert_allclose(ours, other.grad[0].numpy(), atol=atol, rtol=0)
