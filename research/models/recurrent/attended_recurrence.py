"""Recurrent decoders that attend to the encoder's states: additive (Bahdanau 2015), multiplicative (Luong 2015).

additive         e_ts = v . tanh(W s_{t-1} + U h_s), a = softmax_s(e), c_t = sum_s a_ts h_s; c_t enters the gates of
                 step t, and the output is W_o [s_t; c_t] (Bahdanau 2015, section 3.1 and appendix A)
multiplicative   a = softmax_s(s_t . W h_s), r_t = tanh(W_o [s_t; c_t]); r_t is the output and enters the gates of step
                 t + 1, which is input feeding (Luong 2015, sections 3.1 "general" and 3.3)

Both start from the final state of the encoder's layer at the same place, as the decoder without attention does
(Sutskever 2014), whose mixers are `lstm` and `gru`.
"""

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from research.config import ModelConfig
from research.models.initialisers import NORMAL, UNIFORM, FanIn, Initializer, zeros
from research.models.kernels.attention_mask import MASKED_SCORE
from research.models.layers import Shared, at_least_float32, parameter, project
from research.models.recurrent.lstm_gru import Cell, on_rows, step
from research.optim.parametrisation import Role, product_multiplier

Score = Literal["additive", "multiplicative"]


class AttendedState(flax.struct.PyTreeNode):
    """State of the cell, the attentional output fed to the next step, and the source: its states, keys and mask."""

    recurrent: Any
    fed_BP: jax.Array
    source_BSD: jax.Array
    keys_BSP: jax.Array
    mask_BS: jax.Array


class Weights(NamedTuple):
    """What one step multiplies with; `query` and `vector` are None for the multiplicative score."""

    recurrent_PnP: jax.Array
    bias_nP: jax.Array
    fed_PnP: jax.Array
    out_PD: jax.Array
    query_PP: jax.Array | None = None
    vector_P: jax.Array | None = None


class AttendedRecurrence(nn.Module):
    """A cell as wide as the model with one of the two attentions; `state` as Mixer.start_from or `init_state` makes it.

    With Shared.source_BSD, `state` is the encoder's final state of the cell; without it, an AttendedState.
    """

    config: ModelConfig
    layer: int
    cell: Cell
    gates: int
    score: Score

    @nn.compact
    def __call__(self, x_BLD: jax.Array, state: Any, shared: Shared) -> tuple[jax.Array, AttendedState, Shared]:
        D = self.config.width
        key_DP = parameter(self, "key", (D, D), "width hidden", NORMAL, "hidden")
        if shared.source_BSD is not None:
            source_BSD, fed_BP = shared.source_BSD, jnp.zeros_like(x_BLD[:, 0])
            keys_BSP = project(source_BSD, key_DP)
            if self.score == "multiplicative" and (multiplier := product_multiplier(self.config)) != 1:
                keys_BSP *= multiplier  # for the scores, which are their products with states
            state = AttendedState(state, fed_BP, source_BSD, keys_BSP, shared.source_mask_BS)

        def run(
            x_BLD: jax.Array,
            state: AttendedState,
            mask_BL: jax.Array | None,
            input_DnP: jax.Array,
            input_bias_nP: jax.Array,
            **of_step: jax.Array,
        ) -> tuple[jax.Array, AttendedState]:
            input_BLnP = project(x_BLD, input_DnP) + input_bias_nP.astype(x_BLD.dtype)[None, None]
            return _run(self.cell, self.score, Weights(**of_step), input_BLnP, state, mask_BL)

        # XLA (jax 0.10), left to split this loop, sums some gradients wrongly, by a tenth and more.
        y_BLD, state = on_rows(run, x_BLD, state, shared.mask_BL, self._weights())
        return y_BLD, state, shared

    def _weights(self) -> dict[str, tuple[jax.Array, str]]:
        """The weights of the input and those of a step, each with the names of its dimensions."""
        D, n = self.config.width, self.gates

        def own(
            name: str, shape: tuple[int, ...], axes: str, init: Initializer | FanIn, role: Role
        ) -> tuple[jax.Array, str]:
            return parameter(self, name, shape, axes, init, role), axes

        weights = {
            "input_DnP": own("input", (D, n, D), "width gates hidden", UNIFORM, "hidden"),
            "input_bias_nP": own("input_bias", (n, D), "gates hidden", zeros, "vector"),
            "recurrent_PnP": own("recurrent", (D, n, D), "width gates hidden", UNIFORM, "hidden"),
            "bias_nP": own("recurrent_bias", (n, D), "gates hidden", zeros, "vector"),
            "fed_PnP": own("fed", (D, n, D), "width gates hidden", UNIFORM, "hidden"),
            "out_PD": own("out", (2 * D, D), "width hidden", NORMAL, "hidden"),
        }
        if self.score == "additive":
            weights["query_PP"] = own("query", (D, D), "width hidden", NORMAL, "hidden")
            weights["vector_P"] = own("vector", (D,), "hidden", NORMAL, "score")
        return weights


def _run(
    cell: Cell,
    score: Score,
    weights: Weights,
    input_BLnP: jax.Array,
    state: AttendedState,
    mask_BL: jax.Array | None,
) -> tuple[jax.Array, AttendedState]:
    """Outputs (B, L, D) and the state after them; padding leaves the state as it is."""

    def one(carry: tuple[Any, jax.Array], token: tuple) -> tuple[tuple[Any, jax.Array], jax.Array]:
        input_BnP, mask_B = token
        recurrent, output_BD, fed_BP = _step(cell, score, weights, input_BnP, *carry, state)
        new = (recurrent, fed_BP)
        if mask_B is not None:
            new = jax.tree.map(lambda after, before: jnp.where(mask_B[:, None], after, before), new, carry)
        return new, output_BD

    tokens = jax.tree.map(lambda array: jnp.moveaxis(array, 1, 0), (input_BLnP, mask_BL))
    (recurrent, fed_BP), output_LBD = jax.lax.scan(one, (state.recurrent, state.fed_BP), tokens)
    return jnp.moveaxis(output_LBD, 0, 1), state.replace(recurrent=recurrent, fed_BP=fed_BP)


def _step(
    cell: Cell,
    score: Score,
    weights: Weights,
    input_BnP: jax.Array,
    recurrent: Any,
    fed_BP: jax.Array,
    source: AttendedState,
) -> tuple[Any, jax.Array, jax.Array]:
    """(next state of the cell, output, what the multiplicative form feeds to the next step)."""
    dtype = input_BnP.dtype
    if score == "additive":
        query_B1P = project(recurrent.hidden_BP.astype(dtype), weights.query_PP)[:, None]
        energy_BSP = jnp.tanh(query_B1P + source.keys_BSP)
        context_BD = _context(jnp.einsum("bsp,p->bs", energy_BSP, weights.vector_P.astype(dtype)), source)
        recurrent = step(
            cell, input_BnP + project(context_BD, weights.fed_PnP), recurrent, weights.recurrent_PnP, weights.bias_nP
        )
        hidden_BP = recurrent.hidden_BP.astype(dtype)
        return recurrent, project(jnp.concatenate([hidden_BP, context_BD], axis=-1), weights.out_PD), fed_BP
    recurrent = step(
        cell, input_BnP + project(fed_BP, weights.fed_PnP), recurrent, weights.recurrent_PnP, weights.bias_nP
    )
    hidden_BP = recurrent.hidden_BP.astype(dtype)
    context_BD = _context(jnp.einsum("bp,bsp->bs", hidden_BP, source.keys_BSP), source)
    output_BD = jnp.tanh(project(jnp.concatenate([hidden_BP, context_BD], axis=-1), weights.out_PD))
    return recurrent, output_BD, output_BD


def _context(scores_BS: jax.Array, source: AttendedState) -> jax.Array:
    """Mean of the source's states (B, D) under softmax(scores), in float32 until the weights are known."""
    masked_BS = jnp.where(source.mask_BS, at_least_float32(scores_BS), MASKED_SCORE)
    weights_BS = jax.nn.softmax(masked_BS, axis=-1).astype(scores_BS.dtype)
    return jnp.einsum("bs,bsd->bd", weights_BS, source.source_BSD)


def init_state(config: ModelConfig, batch: int, recurrent: Any) -> AttendedState:
    """Room for a source of `source_length` tokens, filled by the first step, beside the cell's state."""
    S, D = config.source_length, config.width
    empty_BSD = jnp.zeros((batch, S, D), config.compute_dtype)
    return AttendedState(recurrent, empty_BSD[:, 0], empty_BSD, empty_BSD, jnp.zeros((batch, S), bool))


def params(config: ModelConfig, gates: int, score: Score) -> int:
    """Parameters of one layer: three matrices and two biases a gate, the attention's, and the output's."""
    D = config.width
    attention = 2 * D * D + D if score == "additive" else D * D
    return gates * (3 * D * D + 2 * D) + attention + 2 * D * D


def matmul_params(config: ModelConfig, gates: int, score: Score) -> int:
    """Parameters each target token is multiplied with: all matrices but the keys'."""
    return config.width**2 * (3 * gates + 2 + (score == "additive"))


def sequence_flops(config: ModelConfig, length: int) -> int:
    """Keys of every source token, then scores and contexts: L x S products of width D each."""
    S, D = config.source_length, config.width
    return 2 * S * D * D + 4 * length * S * D


def elementwise_flops(config: ModelConfig, length: int, score: Score) -> int:
    """Additive: the sum and the tanh of every (target, source, channel), and the cell's part aside."""
    return 2 * length * config.source_length * config.width if score == "additive" else length * config.width


def state_bytes(config: ModelConfig, bytes_per_value: int) -> int:
    """The source's states and keys and the fed output of one layer; the cell's own state comes on top."""
    return (2 * config.source_length + 1) * config.width * bytes_per_value
