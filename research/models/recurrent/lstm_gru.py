"""LSTM (Hochreiter 1997, forget gate of Gers 2000) and GRU (Cho 2014) in torch's conventions, and as sequence mixers.

What the input contributes to the gates is one matrix product over the whole sequence, outside of the recurrence; what
is left inside is the product with the previous hidden state. The gradient of that product's weight is likewise taken
once for the whole sequence. Gates stand in torch's order: input, forget, cell, output; reset, update, new.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from research.config import ModelConfig
from research.models.initialisers import UNIFORM, Initializer, zeros
from research.models.layers import Shared, at_least_float32, parameter, project
from research.per_device import on_each_device, whole


class LstmState(flax.struct.PyTreeNode):
    """Hidden state and memory cell, float32."""

    hidden_BP: jax.Array
    cell_BP: jax.Array


class GruState(flax.struct.PyTreeNode):
    """Hidden state, float32."""

    hidden_BP: jax.Array


# (what the input contributes (B, gates, P), what the hidden state contributes (B, gates, P), state) -> next state
Cell = Callable[[jax.Array, jax.Array, Any], Any]


def lstm_cell(input_B4P: jax.Array, recurrent_B4P: jax.Array, state: LstmState) -> LstmState:
    """c' = s(f) c + s(i) tanh(g), h' = s(o) tanh(c'), from the gates' pre-activations (torch.nn.LSTM)."""
    i_BP, f_BP, g_BP, o_BP = jnp.moveaxis(at_least_float32(input_B4P) + at_least_float32(recurrent_B4P), 1, 0)
    cell_BP = jax.nn.sigmoid(f_BP) * state.cell_BP + jax.nn.sigmoid(i_BP) * jnp.tanh(g_BP)
    return LstmState(jax.nn.sigmoid(o_BP) * jnp.tanh(cell_BP), cell_BP)


def gru_cell(input_B3P: jax.Array, recurrent_B3P: jax.Array, state: GruState) -> GruState:
    """h' = (1 - z) tanh(n_x + r n_h) + z h: the reset gate acts after the recurrent product (torch.nn.GRU)."""
    input_3BP = jnp.moveaxis(at_least_float32(input_B3P), 1, 0)
    recurrent_3BP = jnp.moveaxis(at_least_float32(recurrent_B3P), 1, 0)
    reset_BP, update_BP = jax.nn.sigmoid(input_3BP[:2] + recurrent_3BP[:2])
    new_BP = jnp.tanh(input_3BP[2] + reset_BP * recurrent_3BP[2])
    return GruState((1 - update_BP) * new_BP + update_BP * state.hidden_BP)


def step(cell: Cell, input_BnP: jax.Array, state: Any, weight_PnP: jax.Array, bias_nP: jax.Array) -> Any:
    """The state after one more token; `input_BnP` is the input's contribution to the n gates, its bias included."""
    recurrent_BnP = project(state.hidden_BP.astype(input_BnP.dtype), weight_PnP)
    return cell(input_BnP, recurrent_BnP + bias_nP.astype(input_BnP.dtype)[None], state)


def run(
    cell: Cell,
    input_BLnP: jax.Array,
    state: Any,
    weight_PnP: jax.Array,
    bias_nP: jax.Array,
    mask_BL: jax.Array | None = None,
) -> tuple[jax.Array, Any]:
    """Hidden states (B, L, P) in the input's dtype, and the state after them; equal to `step` token by token.

    mask_BL: false at padding, which leaves the state as it is.
    """
    bias_BLnP = jnp.broadcast_to(bias_nP.astype(input_BLnP.dtype)[None, None], input_BLnP.shape)
    return _recurrence(cell, input_BLnP, state, weight_PnP, bias_BLnP, mask_BL)


def _scan(
    cell: Cell,
    input_BLnP: jax.Array,
    state: Any,
    weight_PnP: jax.Array,
    bias_BLnP: jax.Array,
    mask_BL: jax.Array | None,
) -> tuple[jax.Array, Any]:
    """`run` with the recurrent bias given for every token."""

    def one(state: Any, token: tuple) -> tuple[Any, jax.Array]:
        input_BnP, bias_BnP, mask_B = token
        recurrent_BnP = project(state.hidden_BP.astype(input_BnP.dtype), weight_PnP)
        new = cell(input_BnP, recurrent_BnP + bias_BnP, state)
        if mask_B is not None:
            new = jax.tree.map(lambda after, before: jnp.where(mask_B[:, None], after, before), new, state)
        return new, new.hidden_BP.astype(input_BnP.dtype)

    tokens = jax.tree.map(lambda array: jnp.moveaxis(array, 1, 0), (input_BLnP, bias_BLnP, mask_BL))
    state, hidden_LBP = jax.lax.scan(one, state, tokens)
    return jnp.moveaxis(hidden_LBP, 0, 1), state


def _forward(
    cell: Cell,
    input_BLnP: jax.Array,
    state: Any,
    weight_PnP: jax.Array,
    bias_BLnP: jax.Array,
    mask_BL: jax.Array | None,
) -> tuple[tuple[jax.Array, Any], tuple]:
    outputs, pull_back = jax.vjp(
        lambda inputs, state, bias: _scan(cell, inputs, state, weight_PnP, bias, mask_BL), input_BLnP, state, bias_BLnP
    )
    return outputs, (pull_back, outputs[0], state.hidden_BP, weight_PnP)


def _backward(cell: Cell, residuals: tuple, gradient: Any) -> tuple:
    """Each token's bias has the gradient of the product it is added to; the weight's is one product of all of them.

    At padding that gradient is zero, so the hidden state there, the one before, does not matter.
    """
    pull_back, hidden_BLP, start_BP, weight_PnP = residuals
    to_input_BLnP, to_state, to_product_BLnP = pull_back(gradient)
    before_BLP = jnp.concatenate([start_BP.astype(hidden_BLP.dtype)[:, None], hidden_BLP[:, :-1]], axis=1)
    to_weight_PnP = jnp.einsum("blp,blnq->pnq", before_BLP, to_product_BLnP)
    return to_input_BLnP, to_state, to_weight_PnP.astype(weight_PnP.dtype), to_product_BLnP, None


_recurrence = jax.custom_vjp(_scan, nondiff_argnums=(0,))
_recurrence.defvjp(_forward, _backward)


@dataclass(frozen=True)
class ForgetBias:
    """Initialiser of the LSTM's input bias (4, P): the forget gate starts at `value`, the others at zero."""

    value: float

    def __call__(self, key: jax.Array, shape: tuple[int, ...], layer: jax.Array | int) -> jax.Array:
        return jnp.zeros(shape).at[1].set(self.value)


def init_lstm(config: ModelConfig, batch: int, max_length: int) -> LstmState:
    """Zeros; the size does not depend on the length."""
    zero_BP = jnp.zeros((batch, config.width), jnp.promote_types(config.compute_dtype, jnp.float32))
    return LstmState(zero_BP, zero_BP)


def init_gru(config: ModelConfig, batch: int, max_length: int) -> GruState:
    """Zeros; the size does not depend on the length."""
    return GruState(jnp.zeros((batch, config.width), jnp.promote_types(config.compute_dtype, jnp.float32)))


class Lstm(nn.Module):
    """y_t = h_t of an LSTM as wide as the model."""

    config: ModelConfig
    layer: int

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, state: LstmState | None, shared: Shared
    ) -> tuple[jax.Array, LstmState | None, Shared]:
        start = init_lstm(self.config, x_BLD.shape[0], 0) if state is None else state
        bias_init = ForgetBias(self.config.recurrent.forget_bias)
        y_BLD, end = _mix(self, lstm_cell, 4, bias_init, x_BLD, start, shared.mask_BL)
        return y_BLD, None if state is None else end, shared


class Gru(nn.Module):
    """y_t = h_t of a GRU as wide as the model."""

    config: ModelConfig
    layer: int

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, state: GruState | None, shared: Shared
    ) -> tuple[jax.Array, GruState | None, Shared]:
        start = init_gru(self.config, x_BLD.shape[0], 0) if state is None else state
        y_BLD, end = _mix(self, gru_cell, 3, zeros, x_BLD, start, shared.mask_BL)
        return y_BLD, None if state is None else end, shared


def _mix(
    module: nn.Module,
    cell: Cell,
    gates: int,
    bias_init: Initializer,
    x_BLD: jax.Array,
    state: Any,
    mask_BL: jax.Array | None,
) -> tuple[jax.Array, Any]:
    """Declare the parameters in `module`, the matrices drawn as torch does, and run the cell over x."""
    n, D = gates, x_BLD.shape[-1]
    matrix, bias = "width gates hidden", "gates hidden"
    weights = {
        "input_DnP": (parameter(module, "input", (D, n, D), matrix, UNIFORM, "hidden"), matrix),
        "weight_PnP": (parameter(module, "recurrent", (D, n, D), matrix, UNIFORM, "hidden"), matrix),
        "input_bias_nP": (parameter(module, "input_bias", (n, D), bias, bias_init, "vector"), bias),
        "bias_nP": (parameter(module, "recurrent_bias", (n, D), bias, zeros, "vector"), bias),
    }

    def of_rows(
        x_BLD: jax.Array, state: Any, mask_BL: jax.Array | None, input_DnP: jax.Array, input_bias_nP: jax.Array, **own
    ) -> tuple[jax.Array, Any]:
        input_BLnP = project(x_BLD, input_DnP) + input_bias_nP.astype(x_BLD.dtype)[None, None]
        return run(cell, input_BLnP, state, mask_BL=mask_BL, **own)

    return on_rows(of_rows, x_BLD, state, mask_BL, weights)


def on_rows(
    function: Callable,
    x_BLD: jax.Array,
    state: Any,
    mask_BL: jax.Array | None,
    weights: Mapping[str, tuple[jax.Array, str]],
) -> tuple[jax.Array, Any]:
    """function(x, state, mask, **weights): outputs (B, L, D) and the state after them, of each device's own rows.

    weights: beside each the names of its dimensions. Every token needs the whole hidden state: split over its channels,
    devices would speak to each other at each. They exchange x for rows of the batch, which is a gate's width and not n
    gates', and gather the weights. Raises ConfigError if the rows do not divide over all devices.
    """
    arrays, axes = zip(*weights.values())

    def of_rows(x_BLD: jax.Array, state: Any, mask_BL: jax.Array | None, *parts: jax.Array) -> tuple[jax.Array, Any]:
        return function(x_BLD, state, mask_BL, **dict(zip(weights, map(whole, parts, axes))))

    split = on_each_device(of_rows, ("rows steps", "rows", "rows steps", *axes), ("rows steps", "rows"))
    return split(x_BLD, state, mask_BL, *arrays)


def lstm_params(config: ModelConfig) -> int:
    """Parameters of one layer: 4 gates, each with an input and a recurrent matrix and a bias for either."""
    return 4 * (2 * config.width**2 + 2 * config.width)


def gru_params(config: ModelConfig) -> int:
    """Parameters of one layer: 3 gates, as for the LSTM."""
    return 3 * (2 * config.width**2 + 2 * config.width)


def lstm_matmul_params(config: ModelConfig) -> int:
    """Parameters each token is multiplied with."""
    return 8 * config.width**2


def gru_matmul_params(config: ModelConfig) -> int:
    """Parameters each token is multiplied with."""
    return 6 * config.width**2


def lstm_elementwise_flops(config: ModelConfig, length: int) -> int:
    """12 additions into the 4 gates, 5 nonlinearities and 4 operations on the cell, each channel and token."""
    return 21 * length * config.width


def gru_elementwise_flops(config: ModelConfig, length: int) -> int:
    """9 additions and a product into the 3 gates, 3 nonlinearities and 4 operations on the state."""
    return 17 * length * config.width


def lstm_state_bytes(config: ModelConfig, length: int, bytes_per_value: int) -> int:
    """Hidden state and cell of one layer, at least float32."""
    return 2 * config.width * max(4, bytes_per_value)


def gru_state_bytes(config: ModelConfig, length: int, bytes_per_value: int) -> int:
    """Hidden state of one layer, at least float32."""
    return config.width * max(4, bytes_per_value)
