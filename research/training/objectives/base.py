"""What an objective is: pure functions of (params, batch) that the step is handed.

The step (training/step.py) knows how to accumulate, differentiate, shard and update. What the loss is, which arrays of
the batch it reads, what is logged of it and what is measured on held-out examples is the objective's to say.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from research.config import ModelConfig, RunConfig
from research.data.arrays import LABEL_ARRAYS, PAIRED_ARRAYS, TEXT_ARRAYS
from research.data.batches import Validation
from research.models import language_model
from research.models.heads import Heads

Batch = dict[str, jax.Array]


class Terms(NamedTuple):
    """The objective on some rows of a batch.

    The objective of a whole batch is the sum of `loss` over its microbatches divided by the batch's weight, plus the
    mean of `penalty` over them, so that microbatches of unequal weight change nothing.
    """

    loss: jax.Array  # sum over the rows
    penalty: jax.Array  # a mean over the rows, added with weight one
    sums: Any  # pytree of arrays that add up over microbatches: what `metrics` and `after_update` read
    spread: Any = None  # of the gradient over microbatches (noise_scale.py), from the step where it is asked for


class Objective(NamedTuple):
    """An objective and what goes with it.

    arrays: the names of the batch's arrays (research/data/arrays.py).
    weight(batch): what the summed loss is divided by.
    metrics(sums, weight, penalty) -> {name: scalar}, with `loss_nats`, which stops a run once it is not finite.
    evaluate(params, batch): sums over a held-out batch, a tree of arrays that add up over batches.
    measures(sums, held_out) -> {column of the runs table: number}, of the sums over all batches of a domain, in numpy's
    float64; `loss_nats` is one of them, by which runs are compared.
    after_update(params, sums) -> params: changes that no gradient makes.
    """

    arrays: tuple[str, ...]
    weight: Callable[[Batch], jax.Array]
    terms: Callable[[Any, Batch], Terms]
    metrics: Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]]
    evaluate: Callable[[Any, Batch], Any]
    measures: Callable[[Any, Validation], dict[str, float]]
    after_update: Callable[[Any, Any], Any] = lambda params, sums: params


MakeObjective = Callable[[RunConfig], Objective]


def text_arrays(model: ModelConfig) -> tuple[str, ...]:
    """The arrays that `final_states` reads, and the targets and weights of the next token."""
    return TEXT_ARRAYS if model.encoder is None else PAIRED_ARRAYS


def labelled_arrays(model: ModelConfig) -> tuple[str, ...]:
    """`text_arrays` of rows that have a label."""
    return (*text_arrays(model), *LABEL_ARRAYS)


def final_states(model: ModelConfig, params: Any, batch: Batch) -> tuple[jax.Array, Heads, Any]:
    """What `language_model.hidden` returns of a batch: final hidden states (B, L, D), heads, routing."""
    sources = (batch["sources"], batch["source_weights"] > 0) if model.encoder is not None else None
    return language_model.hidden(model, params, batch["inputs"], sources=sources)
