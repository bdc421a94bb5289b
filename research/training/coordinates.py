"""The coordinate check: how far a few steps move every activation, at several sizes of one model.

Under a parametrisation that fits a model, an activation's typical change in a step is the same at every size (Yang
2022, Tensor Programs V, appendix D.1): the slope of its logarithm against the size's is zero. A slope above zero is a
layer that will blow up, one below a layer that will stop learning, and both are seen within seconds on small models.

Two things fall as width^-1/2 without being wrong:

- What starts by a matrix whose products vanish with the width, logits under mup and mean_field: they change at first by
  what the starting weights make of changing activations, until what the matrix itself has learned outgrows that. They
  must not rise; their slope comes to zero with further steps and widths. So it is in depth under completep with the
  residual stream as long as it is not normed: branches start at random, and the mean of so many falls as depth^-1/2.
  The single values of multi-query attention start so too, and move as far at every width; what their small start makes
  of changing scores and weights falls, and with it most of the mixer's change in the first tens of steps.
- What the steps of one token do to another's products. A batch of more tokens than the narrowest model has channels
  shows little else, in mixers that start at zero most of all (RWKV's): check with fewer.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.config import RunConfig, check
from research.models import language_model
from research.models.experts.router import ROUTING
from research.models.layers import BRANCH
from research.optim.optimizer import make_optimizer
from research.plan.scaling import scaled
from research.training.objectives.base import Batch
from research.training.objectives.language_modelling import language_modelling
from research.training.step import gradients

Activations = dict[str, jax.Array]
WHOLE = ("embedding", "stack", "final", "logits")  # activations that a model of any depth has


class Coordinate(NamedTuple):
    """One activation after one number of steps.

    changes: root mean square of its change since the start, over tokens and channels, of each size; the geometric mean
    over seeds. slope: of log change against log size.
    """

    activation: str
    step: int
    sizes: tuple[int, ...]
    changes: tuple[float, ...]
    slope: float


def coordinates(
    config: RunConfig,
    sizes: Sequence[int],
    by: Literal["width", "depth"] = "width",
    steps: int = 4,
    seeds: Sequence[int] = (0, 1),
) -> tuple[Coordinate, ...]:
    """Train `config` for `steps` at each width or depth, and return how far each activation that all sizes have moved.

    The model is scaled in its proportions (plan/scaling.py); tokens are random, one batch of the config's size; the
    rate is the config's peak from the first step. Activations: the embedding's rows, each mixer's output, the residual
    stream after each repetition of the pattern and after the last, what the head reads, the logits. By depth there are
    none of a single layer, which does another share of the work. Raises ConfigError for fewer than two sizes, and where
    the model does not scale to one.
    """
    check(len(set(sizes)) > 1, by, tuple(sizes), "must be at least two sizes, to fit a slope", "name another")
    model = replace(config.model, scan_layers=False, remat="none")  # so that every layer can be looked into
    optimizer = replace(config.optimizer, schedule="constant", warmup_fraction=0.0)
    changes = {}
    for size in sorted(set(sizes)):
        shape = (size, model.depth) if by == "width" else (model.width, size)
        run = replace(config, model=scaled(model, *shape), optimizer=optimizer)
        update, look = _update(run), jax.jit(_look(run))  # compiled once for all seeds
        of_seeds = [_changes(run, update, look, steps, seed) for seed in seeds]
        changes[size] = {key: _geometric_mean([one[key] for one in of_seeds]) for key in of_seeds[0]}
    shown = [key for key in changes[max(changes)] if by == "width" or key[0] in WHOLE]
    return tuple(_coordinate(*key, {size: of_size[key] for size, of_size in changes.items()}) for key in shown)


def _coordinate(activation: str, step: int, changes: dict[int, float]) -> Coordinate:
    sizes, moved = tuple(changes), tuple(changes.values())
    slope = float(np.polyfit(np.log(sizes), np.log(moved), 1)[0])
    return Coordinate(activation, step, sizes, moved, slope)


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(math.log(value) for value in values) / len(values))


def _changes(
    config: RunConfig, update: Callable, look: Callable, steps: int, seed: int
) -> dict[tuple[str, int], float]:
    """The change of each activation after each step, by its name and the step's number, counted from 1."""
    params, batch = language_model.init(config.model, jax.random.key(seed)), _batch(config, seed)
    moments, found = None, {}
    start = look(params, batch)
    for step in range(1, steps + 1):
        params, moments = update(params, moments, batch)
        now = look(params, batch)
        for name in start:
            found[name, step] = float(jnp.sqrt(jnp.mean(jnp.square(now[name] - start[name]))))
    return found


def _update(config: RunConfig) -> Callable[[Any, Any, Batch], tuple[Any, Any]]:
    boxed = language_model.abstract(config.model)
    optimizer = make_optimizer(config.optimizer, boxed, config.optimizer.numbers(steps=1))
    objective = language_modelling(config)

    @jax.jit
    def step(params: Any, moments: Any, batch: Batch) -> tuple[Any, Any]:
        grads, terms, _ = gradients(objective, config.training, params, batch)
        updates, moments = optimizer.update(grads, moments, params)
        return objective.after_update(optax.apply_updates(params, updates), terms.sums), moments

    return lambda params, moments, batch: step(params, optimizer.init(params) if moments is None else moments, batch)


def _look(config: RunConfig) -> Callable[[Any, Batch], Activations]:
    """Float32 activations of a batch by name."""
    model = language_model.LanguageModel(config.model)

    def look(params: Any, batch: Batch) -> Activations:
        sources = (batch["sources"], batch["source_weights"] > 0) if "sources" in batch else None
        (x_BLD, heads, _), seen = model.apply(
            {"params": params},
            batch["inputs"],
            sources=sources,
            capture_intermediates=lambda module, method: method == "__call__" and _is_shown(module.name),
            mutable=["intermediates", ROUTING],
        )
        found = {"embedding": params["embedding"][batch["inputs"]]}
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            seen["intermediates"], is_leaf=lambda x: type(x) is tuple
        ):
            found[".".join(part.key for part in path[:-1])] = jax.tree.leaves(leaf)[0]
        last = f"period{config.model.repeats - 1}" if config.model.repeats else "prefix"
        found |= {"stack": found[last], "final": x_BLD, "logits": x_BLD @ heads.vocabulary_DV.astype(x_BLD.dtype)}
        return {name: array.astype(jnp.float32) for name, array in found.items()}

    return look


def _is_shown(name: str | None) -> bool:
    """Of a module: a stack's part, whose output is the residual stream, or a mixer."""
    name = name or ""
    return name.startswith(("prefix", "period")) or (name.startswith(BRANCH) and not name.endswith("norm"))


def _batch(config: RunConfig, seed: int) -> Batch:
    """Tokens drawn evenly from the vocabulary, each to predict the next."""
    shape, rng = (config.training.batch_size, config.training.sequence_length), np.random.default_rng(seed)
    tokens = rng.integers(config.model.vocab_size, size=(shape[0], shape[1] + 1), dtype=np.int32)
    batch = {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "weights": np.ones(shape, np.float32)}
    if config.model.encoder is not None:
        source_shape = (shape[0], config.model.source_length)
        sources = rng.integers(config.model.vocab_size, size=source_shape, dtype=np.int32)
        batch |= {"sources": sources, "source_weights": np.ones(source_shape, np.float32)}
    return batch
