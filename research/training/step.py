"""One optimizer step as a pure function, compiled once with explicit shardings and a donated state."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from research.config import RunConfig, TrainingConfig
from research.data.arrays import ROW_ARRAYS
from research.models import language_model
from research.models.layers import draw
from research.optim.optimizer import make_optimizer
from research.optim.schedules import learning_rate
from research.sharding import batch_sharding, check_batches, moment_shardings, parameter_shardings, replicated
from research.training import noise_scale
from research.training.objectives.base import Batch, Objective, Terms


class TrainState(flax.struct.PyTreeNode):
    """Everything a run needs to go on: float32 parameters, the optimizer's moments, steps done."""

    params: Any
    moments: Any
    step: jax.Array


class Program(NamedTuple):
    """The pure functions of a run, compiled for a mesh.

    `init(seed, inherited)` -> state, by default of the config's seed, with the parameters in `inherited` (by the names
    of the model's parts) in place of those drawn; `train(state, batch, numbers)` -> (state, metrics), consuming the
    state; `evaluated(state)` -> the parameters whose losses count; `evaluate(params, batch)` -> the objective's sums
    over a held-out batch; `measures(sums, held_out)` -> what these say. A batch holds the arrays that the objective
    names; numbers are the optimizer's: `numbers`, or those of another run whose `config.program_of` is the same.
    """

    init: Any
    train: Any
    evaluated: Any
    evaluate: Any
    measures: Any
    numbers: dict[str, float]
    abstract_state: TrainState  # shapes, dtypes and shardings
    batch_sharding: Any


def gradients(
    objective: Objective, training: TrainingConfig, params: Any, batch: Batch, with_spread: bool = False
) -> tuple[Any, Terms, jax.Array]:
    """Gradients of the objective on the whole batch, its terms summed over microbatches, and the batch's weight.

    Gradients and losses add up and are divided once, so microbatches of unequal weight change nothing. They add up in
    `training.accumulation_dtype`, and are float32 in the end. with_spread: the terms also hold how far the gradients of
    microbatches lie apart.
    """
    microbatches, dtype = training.microbatches, training.accumulation_dtype
    weight = objective.weight(batch)

    def one(params: Any, batch: Batch) -> tuple[Any, Terms]:
        def minimised(params: Any) -> tuple[jax.Array, Terms]:
            terms = objective.terms(params, batch)
            share = terms.penalty / microbatches  # a mean over the rows, of which each microbatch has as many
            return terms.loss + weight * share, terms._replace(penalty=share)

        grads, terms = jax.grad(minimised, has_aux=True)(params)
        if with_spread:
            terms = terms._replace(spread=noise_scale.spread(grads, objective.weight(batch)))
        return grads if microbatches == 1 else optax.tree.cast(grads, dtype), terms

    if microbatches == 1:
        grads, terms = one(params, batch)
    else:
        # Row r goes to microbatch r % parts, so that a batch split over devices stays split within each microbatch.
        split = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(-1, microbatches, *a.shape[1:]), 1, 0), batch)
        zero = jax.tree.map(jnp.zeros_like, jax.eval_shape(one, params, jax.tree.map(lambda a: a[0], split)))
        (grads, terms), _ = jax.lax.scan(lambda c, b: (jax.tree.map(jnp.add, c, one(params, b)), None), zero, split)
    return jax.tree.map(lambda g, param: g.astype(param.dtype) / weight, grads, params), terms, weight


def abstract_state(config: RunConfig, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of a run's state. Raises ConfigError if parameters do not divide over the mesh."""
    boxed = language_model.abstract(config.model)
    optimizer = make_optimizer(config.optimizer, boxed, config.optimizer.numbers(config.training.steps))
    params = language_model.unbox(boxed)
    moments = jax.eval_shape(optimizer.init, params)
    params_sharding = parameter_shardings(boxed, mesh)
    moments_sharding = moment_shardings(moments, params, params_sharding, mesh)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        TrainState(params, moments, jax.ShapeDtypeStruct((), jnp.int32)),
        TrainState(params_sharding, moments_sharding, replicated(mesh)),
    )


def make_program(config: RunConfig, mesh: Mesh, objective: Objective) -> Program:
    """Trace and shard the run's functions on `mesh`; compilation happens at the first call of each.

    Raises ConfigError if the batches or the parameters do not divide over the mesh.
    """
    check_batches(config, mesh)
    boxed = language_model.abstract(config.model)
    numbers = config.optimizer.numbers(config.training.steps)
    optimizer = make_optimizer(config.optimizer, boxed, numbers)
    abstract = abstract_state(config, mesh)
    state_sharding = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    params_sharding = state_sharding.params
    rest = replicated(mesh)

    def init(seed: int = config.training.seed, inherited: Mapping[str, Any] = MappingProxyType({})) -> TrainState:
        params = draw(boxed, jax.random.key(seed), params_sharding)
        if inherited:
            params = jax.device_put({**params, **inherited}, params_sharding)
        moments = jax.jit(optimizer.init, out_shardings=state_sharding.moments)(params)
        return TrainState(params, moments, jax.device_put(jnp.zeros((), jnp.int32), rest))

    def train(
        state: TrainState, batch: dict[str, jax.Array], numbers: dict[str, jax.Array]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        optimizer = make_optimizer(config.optimizer, boxed, numbers)
        grads, terms, weight = gradients(
            objective, config.training, state.params, batch, with_spread=config.logging.noise_scale
        )
        updates, moments = optimizer.update(grads, state.moments, state.params)
        params = objective.after_update(optax.apply_updates(state.params, updates), terms.sums)
        metrics = {
            **objective.metrics(terms.sums, weight, terms.penalty),
            "gradient_norm": optax.tree.norm(grads),
            "learning_rate": learning_rate(config.optimizer.schedule, numbers, state.step),
        }
        metrics |= noise_scale.estimates(terms.spread, metrics["gradient_norm"], weight)
        return TrainState(params, moments, state.step + 1), metrics

    batch_shardings = {name: batch_sharding(mesh, 1 if name in ROW_ARRAYS else 2) for name in objective.arrays}
    return Program(
        init=init,
        train=jax.jit(
            train,
            in_shardings=(state_sharding, batch_shardings, rest),
            out_shardings=(state_sharding, rest),
            donate_argnums=0,
        ),
        evaluated=jax.jit(
            lambda state: config.optimizer.evaluated(state.moments, state.params),
            in_shardings=(state_sharding,),
            out_shardings=params_sharding,
        ),
        evaluate=jax.jit(
            objective.evaluate,
            in_shardings=(params_sharding, batch_shardings),
            out_shardings=rest,
        ),
        measures=objective.measures,
        numbers=numbers,
        abstract_state=abstract,
        batch_sharding=batch_sharding(mesh),
    )
