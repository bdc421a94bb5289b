"""The sections of ModelConfig that the recurrent networks read: LSTM and GRU."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RecurrentConfig:
    """Mixers `lstm` and `gru`, as wide as the model."""

    forget_bias: float = 1.0  # of the LSTM's forget gate at the start (Jozefowicz 2015)
