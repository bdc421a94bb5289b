"""LSTM and GRU: a sequence is its steps, the hoisted gradient is the plain one, and the gates start as they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.config import ModelConfig, RecurrentConfig
from research.models import language_model
from research.models.recurrent import lstm_gru
from research.models.recurrent.lstm_gru import GruState, LstmState, gru_cell, lstm_cell

B, L, P = 3, 7, 5
CELLS = {"lstm": (lstm_cell, 4, LstmState), "gru": (gru_cell, 3, GruState)}


def _inputs(kind):
    cell, gates, state = CELLS[kind]
    rng = np.random.default_rng(0)
    start = state(*(rng.normal(size=(B, P)) for _ in range(2 if kind == "lstm" else 1)))
    return cell, rng.normal(size=(B, L, gates, P)), start, rng.normal(size=(P, gates, P)), rng.normal(size=(gates, P))


@pytest.mark.parametrize("kind", CELLS)
def test_a_sequence_is_its_steps_and_padding_none(kind):
    with jax.enable_x64(True):
        cell, input_BLnP, start, weight_PnP, bias_nP = _inputs(kind)
        mask_BL = np.arange(L)[None] >= np.array([[0], [2], [5]])
        hidden_BLP, end = jax.jit(lstm_gru.run, static_argnums=0)(
            cell, input_BLnP, start, weight_PnP, bias_nP, jnp.asarray(mask_BL)
        )
        one = jax.jit(lstm_gru.step, static_argnums=0)
        for row in range(B):
            state = jax.tree.map(lambda array: array[row : row + 1], start)  # noqa: B023
            for t in np.flatnonzero(mask_BL[row]):
                state = one(cell, input_BLnP[row : row + 1, t], state, weight_PnP, bias_nP)
                np.testing.assert_allclose(hidden_BLP[row, t], state.hidden_BP[0], rtol=1e-13, atol=1e-13)
            for found, expected in zip(jax.tree.leaves(end), jax.tree.leaves(state)):
                np.testing.assert_allclose(found[row], expected[0], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", CELLS)
def test_the_weights_hoisted_gradient_is_that_of_the_loop(kind):
    cell, input_BLnP, start, weight_PnP, bias_nP = _inputs(kind)
    mask_BL = jnp.arange(L)[None] >= jnp.array([[0], [2], [5]])

    def steps(input_BLnP, start, weight_PnP, bias_nP):
        state, outputs = start, []
        for t in range(L):
            new = lstm_gru.step(cell, input_BLnP[:, t], state, weight_PnP, bias_nP)
            state = jax.tree.map(lambda after, before: jnp.where(mask_BL[:, t, None], after, before), new, state)  # noqa: B023
            outputs.append(state.hidden_BP)
        return jnp.stack(outputs, axis=1), state

    def loss(function, *inputs):
        hidden_BLP, end = function(*inputs)
        return jnp.sin(3 * hidden_BLP).sum() + sum((leaf**2).sum() for leaf in jax.tree.leaves(end))

    def run(*inputs):
        return lstm_gru.run(cell, *inputs, mask_BL)

    gradient = jax.jit(jax.grad(loss, argnums=(1, 2, 3, 4)), static_argnums=0)
    with jax.enable_x64(True):
        found, expected = (gradient(f, input_BLnP, start, weight_PnP, bias_nP) for f in (run, steps))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, expected)


def test_gates_start_as_published():
    model = ModelConfig(
        vocab_size=31, width=48, depth=2, pattern="lstm, gru", recurrent=RecurrentConfig(forget_bias=1.5)
    )
    params = language_model.init(model, jax.random.key(0))["period0"]
    np.testing.assert_array_equal(params["layer0_mixer"]["input_bias"][:, 0], [0, 1.5, 0, 0])  # i, f, g, o
    for layer in ("layer0_mixer", "layer1_mixer"):
        assert not params[layer]["recurrent_bias"].any()
        for name in ("input", "recurrent"):
            assert 0.95 * 48**-0.5 < np.abs(params[layer][name]).max() <= 48**-0.5


def test_the_state_has_one_size_for_every_length():
    model = ModelConfig(vocab_size=31, width=48, depth=2, pattern="lstm, gru")
    states = [language_model.init_states(model, 1, length) for length in (128, 8192)]
    assert jax.tree.map(lambda leaf: leaf.shape, states[0]) == jax.tree.map(lambda leaf: leaf.shape, states[1])
