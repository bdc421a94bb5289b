"""HiPPO-LegS and the eigenvalues that stand in for it: published numbers, and what the recursion remembers."""

import numpy as np
import pytest

from research.models.state_spaces import hippo


def test_legs_is_normal_plus_low_rank():
    A_NN, B_N = hippo.legs(16)
    P_N = hippo.low_rank(16)
    S_NN = A_NN + np.outer(P_N, P_N)
    np.testing.assert_allclose((S_NN + S_NN.T) / 2, -np.eye(16) / 2, atol=1e-13)
    np.testing.assert_allclose(S_NN @ S_NN.T, S_NN.T @ S_NN, atol=1e-10)
    eigenvalues, low_rank, inputs = hippo.diagonal_plus_low_rank(16)
    np.testing.assert_allclose(np.linalg.eigvals(S_NN).real, -0.5, atol=1e-12)
    assert (eigenvalues.real == -0.5).all() and (np.diff(eigenvalues.imag) > 0).all() and eigenvalues.imag[0] > 0
    # The pair (A, B) in another basis: B^T A^k B is the same for every k.
    L, p, b = (np.concatenate([v, np.conj(v)]) for v in (eigenvalues, low_rank, inputs))
    moved_NN = np.diag(L) - np.outer(p, p.conj())
    for power in range(6):
        expected = B_N @ np.linalg.matrix_power(A_NN, power) @ B_N
        found = b.conj() @ np.linalg.matrix_power(moved_NN, power) @ b
        assert found == pytest.approx(expected, rel=1e-11)


def test_eigenvalues_are_the_published_ones():
    np.testing.assert_allclose(hippo.eigenvalues("lin", 8), -0.5 + 1j * np.pi * np.arange(4))
    np.testing.assert_allclose(hippo.eigenvalues("inv", 8).imag, 8 / np.pi * (8 / np.array([1, 3, 5, 7]) - 1))
    np.testing.assert_allclose(hippo.eigenvalues("real", 8), [-1, -2, -3, -4])
    # S4D's reason for inv: it approaches the frequencies of LegS as N grows (S4D, section 4.2).
    legs, inv = (np.sort(hippo.eigenvalues(name, 256).imag)[-1] for name in ("legs", "inv"))
    assert inv == pytest.approx(legs, rel=0.01)


def test_legs_holds_the_past_as_legendre_coefficients():
    """x' = (A x + B u) / t, stepped bilinearly, projects all of u on Legendre polynomials (Gu 2020, theorem 2)."""
    state_size, steps = 8, 4_000
    A_NN, B_N = hippo.legs(state_size)
    time = (np.arange(steps) + 0.5) / steps
    signal = np.sin(5 * time) + time**2
    x_N = signal[0] * np.eye(state_size)[0]  # all that the first step can know: a constant
    for k in range(1, steps):
        right_N = x_N + A_NN @ x_N / (2 * k) + B_N * signal[k] / k
        x_N = np.linalg.solve(np.eye(state_size) - A_NN / (2 * k), right_N)
    scale_N = np.sqrt(2 * np.arange(state_size) + 1)
    recovered = np.polynomial.legendre.legval(2 * time - 1, scale_N * x_N)
    nearest = np.polynomial.Legendre.fit(2 * time - 1, signal, state_size - 1)(2 * time - 1)
    # What no polynomial of that degree can hold, and as much again for the steps: an error of order 1 / steps.
    np.testing.assert_allclose(recovered, signal, atol=np.abs(nearest - signal).max() + 2 / steps)
