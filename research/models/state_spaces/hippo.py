"""HiPPO-LegS, its normal-plus-low-rank form, and the eigenvalues that S4 and S4D start from.

Everything here is numpy in float64 and runs once, when a program is traced: the numbers become constants of it.
"""

import functools

import numpy as np

from research.config import Eigenvalues


def legs(state_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(A_NN, B_N) of HiPPO-LegS (Gu 2020, theorem 2), with the sign under which x' = A x + B u decays.

    A = -sqrt((2n + 1)(2k + 1)) below the diagonal, -(n + 1) on it, 0 above; B = sqrt(2n + 1).
    """
    scale_N = np.sqrt(2 * np.arange(state_size) + 1.0)
    below_NN = np.tril(np.outer(scale_N, scale_N), -1)
    return -(below_NN + np.diag(np.arange(state_size) + 1.0)), scale_N


def low_rank(state_size: int) -> np.ndarray:
    """P_N with which A + P P^T of LegS is normal: -1/2 I plus a skew-symmetric matrix (Gu 2022, theorem 1)."""
    return np.sqrt(np.arange(state_size) + 0.5)


@functools.cache
def diagonal_plus_low_rank(state_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(eigenvalues, low rank vector, input vector) of LegS in the eigenbasis V of its normal part, N/2 entries each.

    A = V (diag(eigenvalues) - p p^*) V^*. The other half of each is the complex conjugate of this one, which has
    the positive imaginary parts, rising. An eigenvector's phase is free: it is chosen so that the input vector V^* B is
    positive. The low rank vector V^* P is then the input vector over sqrt(2), since P = B / sqrt(2).
    """
    A_NN, B_N = legs(state_size)
    P_N = low_rank(state_size)
    normal_NN = A_NN + np.outer(P_N, P_N)
    # The skew part divided by i is Hermitian, whose eigenvalues are real to the last bit.
    skew_NN = (normal_NN - normal_NN.T) / 2
    frequencies_N, vectors_NN = np.linalg.eigh(-1j * skew_NN)
    kept = frequencies_N > 0
    input_N = np.abs(vectors_NN[:, kept].conj().T @ B_N)
    return -0.5 + 1j * frequencies_N[kept], input_N / np.sqrt(2), input_N


def eigenvalues(initialisation: Eigenvalues, state_size: int) -> np.ndarray:
    """The N/2 eigenvalues, one of each conjugate pair, that a diagonal state space starts from (S4D, section 4).

    legs: -1/2 + i Im(eigenvalues of the normal part of LegS)    lin: -1/2 + i pi n
    inv: -1/2 + i (N / pi) (N / (2n + 1) - 1)                    real: -(n + 1)
    """
    n = np.arange(state_size // 2)
    if initialisation == "legs":
        return diagonal_plus_low_rank(state_size)[0]
    if initialisation == "lin":
        return -0.5 + 1j * np.pi * n
    if initialisation == "inv":
        return -0.5 + 1j * state_size / np.pi * (state_size / (2 * n + 1) - 1)
    return -(n + 1.0) + 0j
