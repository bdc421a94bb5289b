"""The recurrent layers equal torch.nn.LSTM and torch.nn.GRU: outputs, last states and every gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.models import recurrent
from research.models.recurrent import GruState, LstmState, gru_cell, lstm_cell

pytestmark = pytest.mark.oracles
torch = pytest.importorskip("torch", reason="needs the oracles extra")

B, L, D, P = 3, 9, 7, 5
CELLS = {"lstm": (lstm_cell, 4), "gru": (gru_cell, 3)}
# Required: 1e-4 and 1e-9 relative. Everything here is of order one, so the tolerances are absolute ones.
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}


def _ours(kind, weights, x, start):
    cell, gates = CELLS[kind]
    input_DnP = weights["weight_ih_l0"].T.reshape(D, gates, P)
    input_BLnP = jnp.einsum("bld,dnp->blnp", x, input_DnP) + weights["bias_ih_l0"].reshape(1, 1, gates, P)
    weight_PnP = weights["weight_hh_l0"].T.reshape(P, gates, P)
    state = LstmState(*start) if kind == "lstm" else GruState(start[0])
    hidden_BLP, state = recurrent.run(cell, input_BLnP, state, weight_PnP, weights["bias_hh_l0"].reshape(gates, P))
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
