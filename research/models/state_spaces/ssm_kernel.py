"""Linear state spaces x' = A x + B u, y = C x + D u as convolutions and as recurrences (Gu 2022, section 2).

Complex numbers stand for conjugate pairs throughout: arrays with a dimension N hold one of each pair, N being half of
the configured state size, and y is twice the real part of what they sum to. Everything is elementwise and a sum, in
float32 or float64: there is no matrix product except in `dplr_readout`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from research.models.layers import at_least_float32
from research.per_device import on_each_device


class Diagonal(NamedTuple):
    """A discrete diagonal state space of D channels: x <- exp(log_transition) x + input u, y = 2 Re(readout . x).

    In place of D there may be several axes, of size 1 where channels share a system: u and x have the same ones.
    """

    log_transition_DN: jax.Array
    input_DN: jax.Array
    readout_DN: jax.Array


def discretize(
    eigenvalue_DN: jax.Array, input_DN: jax.Array, readout_DN: jax.Array, step_D: jax.Array, method: str
) -> Diagonal:
    """The continuous diagonal state space sampled at step_D: `zoh` holds the input over a step (S4D, section 3.2).

    zoh: Abar = exp(step A), Bbar = (Abar - 1) / A B
    bilinear: Abar = (1 + step A / 2) / (1 - step A / 2), Bbar = step B / (1 - step A / 2)

    Written so that steps far below one lose no digits to a difference of numbers near one.
    """
    scaled_DN = eigenvalue_DN * step_D[:, None]
    if method == "zoh":
        return Diagonal(scaled_DN, _expm1(scaled_DN) / eigenvalue_DN * input_DN, readout_DN)
    half_DN = scaled_DN / 2
    below_DN = (1 - half_DN.real) ** 2 + half_DN.imag**2  # |1 - half|^2; the numerator's is 4 Re(half) more
    log_DN = jax.lax.complex(
        0.5 * jnp.log1p(4 * half_DN.real / below_DN),
        jnp.arctan2(2 * half_DN.imag, 1 - half_DN.real**2 - half_DN.imag**2),
    )
    return Diagonal(log_DN, step_D[:, None] / (1 - half_DN) * input_DN, readout_DN)


def _expm1(z: jax.Array) -> jax.Array:
    """exp(z) - 1 of complex z, accurate near zero."""
    less_one, half_sine = jnp.expm1(z.real), jnp.sin(z.imag / 2)
    return jax.lax.complex(less_one - 2 * (1 + less_one) * half_sine**2, (1 + less_one) * jnp.sin(z.imag))


def diagonal_kernel(system: Diagonal, length: int) -> jax.Array:
    """kernel_LD: 2 Re(sum_n readout_n input_n exp(l log_transition_n)), the Vandermonde product of S4D, section 3.3.

    Tap l is block * Q + rest with Q near the root of the length, and its power a product of two: there are as many
    exponentials as blocks and rests, and going forward no array over both N and L.
    """
    whole = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, system.log_transition_DN.shape), system)
    return on_each_device(partial(_vandermonde, length), ("spread",), "taps spread")(whole)


def _vandermonde(length: int, system: Diagonal) -> jax.Array:
    Q, blocks = _blocks(length)
    log_DN1 = system.log_transition_DN[..., None]
    steps_Q = jnp.arange(Q, dtype=log_DN1.real.dtype)
    near_DNQ = jnp.exp(log_DN1 * steps_Q.reshape((1,) * (log_DN1.ndim - 1) + (Q,)))
    starts = Q * jnp.arange(blocks, dtype=log_DN1.real.dtype).reshape((1,) * (log_DN1.ndim - 1) + (blocks,))
    far = (system.readout_DN * system.input_DN)[..., None] * jnp.exp(log_DN1 * starts)
    # Re(far near) as a sum over real and imaginary parts.
    far = jnp.concatenate([far.real, -far.imag], axis=-2)
    near_DMQ = jnp.concatenate([near_DNQ.real, near_DNQ.imag], axis=-2)
    kernel = 2 * (far[..., :, None] * near_DMQ[..., None, :]).sum(axis=-3)
    return jnp.moveaxis(kernel.reshape(*kernel.shape[:-2], blocks * Q)[..., :length], -1, 0)


def _blocks(length: int) -> tuple[int, int]:
    """(taps in a block, blocks) that hold `length` taps, both near its root."""
    taps = math.isqrt(length - 1) + 1
    return taps, -(-length // taps)


def diagonal_step(system: Diagonal, state_BDM: jax.Array, u_BD: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(y_BD, state after reading u_BD); M = 2 N holds real and imaginary parts, as `split` lays them."""
    before_BDN = joined(state_BDM)
    state_BDN = jnp.exp(system.log_transition_DN)[None] * before_BDN + system.input_DN[None] * u_BD[..., None]
    return 2 * (system.readout_DN[None] * state_BDN).real.sum(axis=-1), split(state_BDN)


class LowRank(NamedTuple):
    """A continuous state space with A = diag(eigenvalue) - low_rank low_rank^*, sampled bilinearly at `step_D`.

    `truncated_readout` is C (I - Abar^length): with it the kernel's first `length` taps are the inverse Fourier
    transform of a rational function (Gu 2022, appendix C.3).
    """

    eigenvalue_DN: jax.Array
    low_rank_DN: jax.Array
    input_DN: jax.Array
    truncated_readout_DN: jax.Array
    step_D: jax.Array


def dplr_kernel(system: LowRank, length: int) -> jax.Array:
    """kernel_LD of `length` taps: its generating function at the roots of unity, inverted (Gu 2022, appendix C.3).

    At w = exp(-i t) it is 2 / (1 + w) * C~ (g - A)^-1 B with g = 2 / step * (1 - w) / (1 + w). (1 + w) / 2 times
    exp(i t / 2) is c = cos(t / 2), and (1 - w) / 2 is i s, s = sin(t / 2): multiplied through by c, the resolvents

        R(v) = step * sum over n and conjugates of v_n / (2 i s - step c eigenvalue_n)

    have no pole where w = -1. Woodbury's identity then gives the rank one correction from four of them.
    """
    return on_each_device(partial(_from_roots, length), ("spread",), "taps spread")(system)


def _from_roots(length: int, system: LowRank) -> jax.Array:
    angle_F1 = jnp.pi / length * jnp.arange(length // 2 + 1, dtype=system.step_D.dtype)[:, None]
    cosine_F1, sine_F1 = jnp.cos(angle_F1), jnp.sin(angle_F1)
    weight_FD = cosine_F1 * system.step_D[None]
    conjugate_DN = system.low_rank_DN.conj()

    def resolvent(v_DN: jax.Array) -> jax.Array:
        sine_F11, weight_FD1 = sine_F1[:, :, None], weight_FD[:, :, None]
        decay_1DN, turn_1DN = system.eigenvalue_DN.real[None], system.eigenvalue_DN.imag[None]
        # v / (2is - b(decay + i turn)) + its conjugate's, the two over one denominator, b = step c.
        weighted_DN = v_DN * system.eigenvalue_DN.conj()
        above = jax.lax.complex(-weight_FD1 * weighted_DN.real[None], 2 * sine_F11 * v_DN.real[None])
        plus, minus = 2 * sine_F11 + weight_FD1 * turn_1DN, 2 * sine_F11 - weight_FD1 * turn_1DN
        damped = weight_FD1 * decay_1DN
        below = jax.lax.complex(damped**2 - plus * minus, -4 * sine_F11 * damped)
        return 2 * system.step_D[None] * (above / below).sum(axis=-1)

    readout_input = resolvent(system.truncated_readout_DN * system.input_DN)
    readout_rank = resolvent(system.truncated_readout_DN * system.low_rank_DN)
    rank_input = resolvent(conjugate_DN * system.input_DN)
    rank_rank = resolvent(conjugate_DN * system.low_rank_DN)
    correction_FD = cosine_F1 * readout_rank * rank_input / (1 + cosine_F1 * rank_rank)
    spectrum_FD = jnp.exp(1j * angle_F1) * (readout_input - correction_FD)
    return jnp.fft.irfft(spectrum_FD, n=length, axis=0)


def dplr_transition(system: LowRank, state_BDN: jax.Array, u_BD: jax.Array) -> jax.Array:
    """(I - step A / 2)^-1 ((I + step A / 2) state + step B u), in time linear in N by Woodbury's identity."""
    half_1D1 = system.step_D[None, :, None] / 2
    eigenvalue, low_rank, conjugate = system.eigenvalue_DN[None], system.low_rank_DN[None], system.low_rank_DN.conj()

    def onto_rank(x_BDN: jax.Array) -> jax.Array:
        return 2 * (conjugate[None] * x_BDN).real.sum(axis=-1, keepdims=True)

    right_BDN = (1 + half_1D1 * eigenvalue) * state_BDN - half_1D1 * low_rank * onto_rank(state_BDN)
    right_BDN = right_BDN + 2 * half_1D1 * system.input_DN[None] * u_BD[..., None]
    inverse_1DN = 1 / (1 - half_1D1 * eigenvalue)
    solved_BDN = inverse_1DN * right_BDN
    scale_1D1 = half_1D1 / (1 + half_1D1 * onto_rank(inverse_1DN * low_rank))
    return solved_BDN - inverse_1DN * low_rank * scale_1D1 * onto_rank(solved_BDN)


def dplr_step(
    system: LowRank, readout_DM: jax.Array, state_BDM: jax.Array, u_BD: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(y_BD, state after reading u_BD), with the `dplr_readout` of the system."""
    state_BDM = split(dplr_transition(system, joined(state_BDM), u_BD))
    return (readout_DM[None] * state_BDM).sum(axis=-1), state_BDM


def dplr_readout(system: LowRank, length: int) -> jax.Array:
    """readout_DM with y = readout . split(state): 2 Re(C x) for the C of `truncated_readout` = C (I - Abar^length).

    Costs log2(length) products of N x N matrices a channel, once a sequence.
    """
    (D, N), kind = system.eigenvalue_DN.shape, system.step_D.dtype
    identity_MM = jnp.eye(2 * N, dtype=kind)
    basis_MDN = jnp.broadcast_to(joined(identity_MM)[:, None], (2 * N, D, N))
    images_MDN = dplr_transition(system, basis_MDN, jnp.zeros((2 * N, D), kind))
    transition_DMM = split(images_MDN).transpose(1, 2, 0)
    remainder_DMM = identity_MM[None] - jnp.linalg.matrix_power(transition_DMM, length)
    row_DM = 2 * split(system.truncated_readout_DN.conj())  # Re(C x) = [Re C, -Im C] . [Re x, Im x]
    return jnp.linalg.solve(remainder_DMM.transpose(0, 2, 1), row_DM[..., None])[..., 0]


def split(x_DN: jax.Array) -> jax.Array:
    """Real and imaginary parts, one after the other along the last axis."""
    return jnp.concatenate([x_DN.real, x_DN.imag], axis=-1)


def joined(x_DM: jax.Array) -> jax.Array:
    """Inverse of `split`."""
    return jax.lax.complex(*jnp.split(x_DM, 2, axis=-1))


def recurrence(
    step: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    state_BDN: jax.Array,
    u_BLD: jax.Array,
    mask_BL: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """(y_BLD, the state after u): step(state_BDN, u_BD) -> (y_BD, state_BDN) for each token, padding passed over."""
    u_BLD = u_BLD.astype(state_BDN.dtype)
    real_BL = jnp.ones(u_BLD.shape[:2], bool) if mask_BL is None else mask_BL

    def read(state_BDN: jax.Array, token: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        u_BD, real_B = token
        y_BD, next_BDN = step(state_BDN, u_BD)
        return jnp.where(real_B.reshape(-1, *(1,) * (state_BDN.ndim - 1)), next_BDN, state_BDN), y_BD

    state_BDN, y_LBD = jax.lax.scan(read, state_BDN, (jnp.moveaxis(u_BLD, 1, 0), real_BL.T))
    return jnp.moveaxis(y_LBD, 0, 1), state_BDN


def causal_convolution(u_BLD: jax.Array, kernel_LD: jax.Array) -> jax.Array:
    """y_t = sum_s kernel_s u_{t-s} along axis 1, by real FFTs of 2 L points; the kernel has L taps or fewer.

    u may have further axes, and so must the kernel then (of size 1 where it is shared). Computed in float32 or float64.
    """
    length, points = u_BLD.shape[1], 2 * u_BLD.shape[1]

    def convolved(u_BLD: jax.Array, kernel_LD: jax.Array) -> jax.Array:
        spectrum = jnp.fft.rfft(u_BLD, n=points, axis=1) * jnp.fft.rfft(kernel_LD, n=points, axis=0)[None]
        return jnp.fft.irfft(spectrum, n=points, axis=1)[:, :length]

    axes = ("batch steps spread", "taps spread")
    return on_each_device(convolved, axes, axes[0])(at_least_float32(u_BLD), kernel_LD)


def fft_flops(points: int) -> int:
    """Of one real FFT: 2.5 n log2(n), the count of Cooley and Tukey's algorithm (rounded up)."""
    return math.ceil(2.5 * points * math.log2(points)) if points > 1 else 0


def convolution_flops(signals: int, kernels: int, length: int) -> int:
    """Of `causal_convolution`: two FFTs of 2 L points and L + 1 complex products a signal, one FFT a kernel."""
    return signals * (2 * fft_flops(2 * length) + 6 * (length + 1)) + kernels * fft_flops(2 * length)


def diagonal_kernel_flops(channels: int, pairs: int, length: int) -> int:
    """Of `diagonal_kernel`: 4 per entry of the Vandermonde matrix, 7 per power (exponent 2, exp 5), 6 per block."""
    taps, blocks = _blocks(length)
    return channels * pairs * (4 * taps * blocks + 7 * (taps + blocks) + 6 * blocks)


def dplr_kernel_flops(channels: int, pairs: int, length: int) -> int:
    """Of `dplr_kernel`: its FFT, and four resolvents of 25 an entry (above 4, below 8, quotient 11, sum 2)."""
    frequencies = length // 2 + 1
    return channels * (4 * 25 * pairs * frequencies + fft_flops(length))
