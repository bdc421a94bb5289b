"""Kernels of linear state spaces are matrix powers, whatever the length, the step and the float type."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.models.state_spaces import h3, hippo, ssm_kernel


def _low_rank_system(seed=0, channels=3, pairs=4):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(4, channels, pairs)) + 1j * rng.normal(size=(4, channels, pairs))
    eigenvalues = -np.abs(vectors[0].real) + 3j * vectors[0].imag
    return ssm_kernel.LowRank(*map(jnp.asarray, (eigenvalues, *vectors[1:], rng.uniform(0.05, 0.2, channels))))


@pytest.mark.parametrize("length", [1, 2, 15, 16])
def test_dplr_kernel_equals_matrix_powers(length):
    """C Abar^l Bbar with dense matrices over all of N, C from C~ = C (I - Abar^length) (annotated-s4's check)."""
    with jax.enable_x64(True):
        system = _low_rank_system()
        kernel_LD = ssm_kernel.dplr_kernel(system, length)
        for d in range(3):
            L, p, b, c = (np.concatenate([v[d], np.conj(v[d])]) for v in system[:4])
            half = float(system.step_D[d]) / 2
            A, one = np.diag(L) - np.outer(p, p.conj()), np.eye(8)
            step, inputs = (
                np.linalg.solve(one - half * A, one + half * A),
                np.linalg.solve(one - half * A, 2 * half * b),
            )
            readout = np.linalg.solve((one - np.linalg.matrix_power(step, length)).T, c)
            powers = [readout @ np.linalg.matrix_power(step, t) @ inputs for t in range(length)]
            np.testing.assert_allclose(kernel_LD[:, d], np.real(powers), rtol=0, atol=1e-12 * np.abs(powers).max())


def _diagonal_system(method, step, initialisation="lin"):
    eigenvalues = jnp.asarray(hippo.eigenvalues(initialisation, 8)[None])
    readout = jnp.asarray(np.random.default_rng(3).normal(size=(1, 4)) + 0j)
    return ssm_kernel.discretize(eigenvalues, jnp.ones((1, 1)) + 0j, readout, jnp.full(1, step), method)


def test_halving_the_step_resamples_the_kernel():
    """At half the step, two taps together are one tap: exactly under zero-order hold, to second order bilinearly."""

    def error(method, taps):
        coarse = ssm_kernel.diagonal_kernel(_diagonal_system(method, 0.32 / taps), taps)[:, 0]
        fine = ssm_kernel.diagonal_kernel(_diagonal_system(method, 0.16 / taps), 2 * taps)[:, 0]
        return float(jnp.abs(fine[0::2] + fine[1::2] - coarse).max() / jnp.abs(coarse).max())

    with jax.enable_x64(True):
        assert error("zoh", 64) < 1e-13
        assert error("bilinear", 64) < 1e-3
        assert error("bilinear", 32) / error("bilinear", 64) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_small_steps_keep_their_digits_in_float32(method):
    """exp(z) - 1 and the logarithm of numbers near one, at the smallest published step and smaller."""
    for step in (1e-3, 1e-6):
        single = _diagonal_system(method, step, "inv")
        with jax.enable_x64(True):
            double = _diagonal_system(method, step, "inv")
        for found, expected in zip(single[:2], double[:2]):
            assert found.dtype == np.complex64
            np.testing.assert_allclose(np.real(found), np.real(expected), rtol=3e-6)
            np.testing.assert_allclose(np.imag(found), np.imag(expected), rtol=3e-6, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize("length", [1, 5, 8])
def test_fourier_convolution_equals_the_sum(length):
    rng = np.random.default_rng(4)
    u, kernel = rng.normal(size=(2, length, 3)), rng.normal(size=(min(length, 4), 3))
    with jax.enable_x64(True):
        found = ssm_kernel.causal_convolution(jnp.asarray(u), jnp.asarray(kernel))
    for b in range(2):
        for d in range(3):
            np.testing.assert_allclose(found[b, :, d], np.convolve(u[b, :, d], kernel[:, d])[:length], atol=1e-13)


def test_shift_taps_are_the_shift_matrix_powers():
    rng = np.random.default_rng(5)
    inputs, readout = rng.normal(size=(2, 2, 3, 5))
    with jax.enable_x64(True):
        taps_LHK = h3.shift_taps(jnp.asarray(inputs), jnp.asarray(readout), 9)
    shift = np.eye(5, k=-1)
    expected = [np.einsum("hkn,nm,hkm->hk", readout, np.linalg.matrix_power(shift, t), inputs) for t in range(5)]
    np.testing.assert_allclose(taps_LHK, expected, atol=1e-13)
