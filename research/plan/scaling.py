"""A model at another width and depth, in the same proportions."""

from dataclasses import replace
from fractions import Fraction

from research.config import ConfigError, ModelConfig, RunConfig

TRIED = 4096  # widths on either side of one that does not fit
SUGGESTIONS = 2  # widths named on either side of one that does not fit


def scaled(model: ModelConfig, width: int, depth: int) -> ModelConfig:
    """`model` at another width and depth in the same proportions: each section that the pattern reads scales itself.

    Head sizes stay and heads grow exactly with the width; hidden widths and ranks grow with it, rounded; an encoder's
    own depth grows with the decoder's. `scaled(model, model.width, model.depth)` is `model`.

    Raises ConfigError for a depth that the pattern does not fill, or a width at which the proportions cannot be kept,
    naming the nearest at which they can.
    """
    deep = _at_depth(model, depth)
    try:
        return _at_width(deep, width)
    except ConfigError as error:
        near = _nearest_widths(deep, width)
        raise ConfigError(f"sizes = {(width, depth)}: {error} Nearest widths that fit: {near}.") from error


def _at_depth(model: ModelConfig, depth: int) -> ModelConfig:
    of_encoder = model.encoder_depth and max(1, round(Fraction(model.encoder_depth * depth, model.depth)))
    return replace(model, depth=depth, encoder_depth=of_encoder)


def _at_width(model: ModelConfig, width: int) -> ModelConfig:
    ratio = Fraction(width, model.width)
    read = model.sections if model.encoder is None else {*model.sections, *model.encoder.sections}
    return replace(model, width=width, **{name: getattr(model, name).scaled(ratio) for name in read})


def _nearest_widths(model: ModelConfig, width: int) -> str:
    """At most SUGGESTIONS below and above, of those near it or, where none is near, the model's own width."""
    below = _fitting(model, range(width - 1, max(0, width - TRIED), -1))
    above = _fitting(model, range(width + 1, width + min(model.width, TRIED) + 1))
    return ", ".join(map(str, sorted(below + above) or [model.width]))


def _fitting(model: ModelConfig, widths: range) -> list[int]:
    found: list[int] = []
    for width in widths:
        try:
            _at_width(model, width)
        except ConfigError:
            continue
        found.append(width)
        if len(found) == SUGGESTIONS:
            break
    return found


def with_seed(run: RunConfig, seed: int) -> RunConfig:
    """`run` with another seed; every other section is the same object, so that a plan of many seeds stays small."""
    return replace(run, training=replace(run.training, seed=seed))
