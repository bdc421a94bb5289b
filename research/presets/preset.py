"""One published model."""

from dataclasses import dataclass

from research.config import ModelConfig


@dataclass(frozen=True)
class Preset:
    """A model, its exact number of parameters, and what its source prints."""

    model: ModelConfig
    params: int
    published: str  # total parameters as printed: 6.7B, 124M, 70,426,624
    source: str  # where the dimensions and the printed number stand
    active_params: int | None = None  # that one token passes through; none: all
