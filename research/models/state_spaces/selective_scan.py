"""The selective scan of Mamba (Gu & Dao 2023, algorithm 2) in four algorithms that are one function.

    h[t] = exp(dt[t] * A) * h[t-1] + dt[t] * B[t] * x[t]        y[t] = sum over n of C[t] * h[t]

for each inner channel p and state entry n: dt is the paper's Delta, A is negative.
The input is discretised by Euler's rule, the decay exactly, as in the published code. States are kept as (B, N, P), the
channels innermost, where the sum over n runs along vector registers.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from research.models.kernels import selective_scan as kernel
from research.per_device import on_each_device
from research.sharding import platform

Inputs = tuple[jax.Array, jax.Array, jax.Array, jax.Array]  # x_LBP, dt_LBP, B_LBN, C_LBN
Scanned = tuple[jax.Array, jax.Array]  # state_BNP after the last token, y_LBP

KERNEL_LENGTH = 64  # tokens below which `pallas` takes no kernel: a TPU's computes whole chunks of 128

# A loop's body is its own program: nothing outside could be merged with what it computes again.
_recomputed = functools.partial(jax.checkpoint, prevent_cse=False)


def selective_scan(
    algorithm: str,
    chunk: int,
    x_BLP: jax.Array,
    dt_BLP: jax.Array,
    A_NP: jax.Array,
    B_BLN: jax.Array,
    C_BLN: jax.Array,
    state_BNP: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """(y_BLP, state_BNP after the last token), in the dtype of the state. A token whose dt is 0 changes no state.

    `sequential` scans over tokens, keeping a state per token for the gradient and nothing else of that size;
    `chunked` keeps one per `chunk` of tokens and scans each chunk again; `associative` is a parallel prefix (Blelloch
    1990) with every decay and state in memory; `pallas` is a kernel (kernels/selective_scan.py), from KERNEL_LENGTH
    tokens on.
    """
    if algorithm == "pallas" and x_BLP.shape[1] < KERNEL_LENGTH:
        algorithm = "sequential"

    def scan(
        x_BLP: jax.Array, dt_BLP: jax.Array, A_NP: jax.Array, B_BLN: jax.Array, C_BLN: jax.Array, state_BNP: jax.Array
    ) -> Scanned:
        if algorithm == "pallas":
            own = (array.astype(state_BNP.dtype) for array in (x_BLP, dt_BLP, A_NP, B_BLN, C_BLN))
            return kernel.selective_scan(*own, state_BNP, platform())
        time_major = (array.astype(state_BNP.dtype).swapaxes(0, 1) for array in (x_BLP, dt_BLP, B_BLN, C_BLN))
        state_BNP, y_LBP = ALGORITHMS[algorithm](tuple(time_major), A_NP, state_BNP, chunk)
        return y_LBP.swapaxes(0, 1), state_BNP

    channels, selection, state = "batch steps spread", "batch steps state", "batch state spread"
    in_axes = (channels, channels, "state spread", selection, selection, state)
    # Pallas' kernels do not say which devices their results differ between, so that jax cannot check it.
    split = on_each_device(scan, in_axes, (channels, state), check_vma=algorithm != "pallas")
    return split(x_BLP, dt_BLP, A_NP, B_BLN, C_BLN, state_BNP)


def _sequential(inputs: Inputs, A_NP: jax.Array, state_BNP: jax.Array, chunk: int) -> Scanned:
    def token(state_BNP: jax.Array, inputs_of_token: Inputs) -> Scanned:
        x_BP, dt_BP, B_BN, C_BN = inputs_of_token
        decay_BNP = jnp.exp(dt_BP[:, None, :] * A_NP[None])
        state_BNP = decay_BNP * state_BNP + (dt_BP * x_BP)[:, None, :] * B_BN[:, :, None]
        return state_BNP, jnp.sum(state_BNP * C_BN[:, :, None], axis=1)

    return jax.lax.scan(_recomputed(token), state_BNP, inputs)


def _chunked(inputs: Inputs, A_NP: jax.Array, state_BNP: jax.Array, chunk: int) -> Scanned:
    length = inputs[0].shape[0]
    chunk = min(chunk, length)
    padding = -length % chunk  # tokens of dt 0 behind the last one

    def cut(array_LBX: jax.Array) -> jax.Array:
        padded = jnp.pad(array_LBX, ((0, padding), (0, 0), (0, 0)))
        return padded.reshape(-1, chunk, *array_LBX.shape[1:])

    def chunk_of_tokens(state_BNP: jax.Array, inputs_of_chunk: Inputs) -> Scanned:
        return _sequential(inputs_of_chunk, A_NP, state_BNP, chunk)

    state_BNP, y_CQBP = jax.lax.scan(_recomputed(chunk_of_tokens), state_BNP, tuple(map(cut, inputs)))
    return state_BNP, y_CQBP.reshape(-1, *y_CQBP.shape[2:])[:length]


def _associative(inputs: Inputs, A_NP: jax.Array, state_BNP: jax.Array, chunk: int) -> Scanned:
    x_LBP, dt_LBP, B_LBN, C_LBN = inputs
    decay_LBNP = jnp.exp(dt_LBP[:, :, None, :] * A_NP[None, None])
    added_LBNP = (dt_LBP * x_LBP)[:, :, None, :] * B_LBN[..., None]
    added_LBNP = added_LBNP.at[0].add(decay_LBNP[0] * state_BNP)

    def compose(first: Scanned, second: Scanned) -> Scanned:
        return first[0] * second[0], second[0] * first[1] + second[1]

    _, states_LBNP = jax.lax.associative_scan(compose, (decay_LBNP, added_LBNP))
    return states_LBNP[-1], jnp.sum(states_LBNP * C_LBN[..., None], axis=2)


ALGORITHMS: dict[str, Callable[[Inputs, jax.Array, jax.Array, int], Scanned]] = {
    "sequential": _sequential,
    "chunked": _chunked,
    "associative": _associative,
}
