"""What may bind the output from outside the program: a mask of the tokens that each row may write next."""

from typing import Protocol

import numpy as np


class DeadEndError(RuntimeError):
    """A constraint leaves a row no token that it may write, not even an end."""


class Constraint(Protocol):
    """A grammar, a schema, a list of answers: which tokens each of the B rows of one decoding may write next.

    It is asked for masks before each token, and told of each token after it; it lives on the host, so that decoding
    goes one step at a time.
    """

    def masks(self) -> np.ndarray:
        """(B, ceil(V / 32)) uint32: bit v % 32 of word v // 32 is set where row b may write id v next.

        A row that has ended needs no bits.
        """

    def advance(self, tokens_B: np.ndarray, running_B: np.ndarray) -> None:
        """Read the tokens (B,) int32 just written, in the rows where running_B is true: the others had ended."""
