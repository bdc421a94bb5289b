"""One optimizer step as a pure function, compiled once with explicit shardings and a donated state."""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from research.config import RunConfig
from research.models import language_model
from research.models.layers import draw
from research.optim.expert_bias import balanced
from research.optim.optimizer import make_optimizer
from research.optim.schedules import learning_rate
from research.sharding import batch_sharding, parameter_shardings, replicated
from research.training.loss import LossSums, cross_entropy
from research.training.routing import Routed, auxiliary_loss, router_metrics, summed


class TrainState(flax.struct.PyTreeNode):
    """Everything a run needs to go on: float32 parameters, optimizer moments, steps done."""

    params: Any
    moments: Any
    step: jax.Array


class Program(NamedTuple):
    """The pure functions of a run, compiled for a mesh.

    `init()` -> state; `train(state, batch)` -> (state, metrics), consuming the state; `evaluate(params, batch)` ->
    LossSums. A batch is {"inputs", "targets": int32 (B, L), "weights": float32 (B, L)}, and for an encoder-decoder
    {"sources": int32 (B, S), "source_weights": float32 (B, S), zero at padding} beside them.
    """

    init: Any
    train: Any
    evaluate: Any
    abstract_state: TrainState  # shapes, dtypes and shardings
    batch_sharding: Any


def loss_sums(config: RunConfig, params: Any, batch: dict[str, jax.Array]) -> tuple[LossSums, Any]:
    """Sums over the batch's tokens, and what the routers did (as of language_model.hidden)."""
    sources = (batch["sources"], batch["source_weights"] > 0) if "sources" in batch else None
    x_BLD, head_DV, routing = language_model.hidden(config.model, params, batch["inputs"], sources=sources)
    return cross_entropy(x_BLD, head_DV, batch["targets"], batch["weights"], config.training.z_loss), routing


def gradients(config: RunConfig, params: Any, batch: dict[str, jax.Array]) -> tuple[Any, LossSums, Routed]:
    """Gradients of the mean loss plus the routers' auxiliary loss, the loss sums, and what the routers did.

    Microbatches add up (gradient sum, weight) pairs and divide once, so unequal weights change nothing.
    """
    parts, weight = config.training.microbatches, batch["weights"].sum()

    def one(params: Any, batch: Any) -> Any:
        def objective(params: Any) -> Any:
            sums, routing = loss_sums(config, params, batch)
            auxiliary = auxiliary_loss(config.model.moe, routing) / parts  # a mean over sequences, as many in each part
            return sums.loss + weight * auxiliary, (sums, Routed(auxiliary, summed(routing)))

        grads, (sums, routed) = jax.grad(objective, has_aux=True)(params)
        return grads, sums, routed

    if parts == 1:
        grads, sums, routed = one(params, batch)
    else:
        # Row r goes to microbatch r % parts, so that a batch split over devices stays split within each microbatch.
        split = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(-1, parts, *a.shape[1:]), 1, 0), batch)
        zero = jax.tree.map(jnp.zeros_like, jax.eval_shape(one, params, jax.tree.map(lambda a: a[0], split)))
        (grads, sums, routed), _ = jax.lax.scan(
            lambda c, b: (jax.tree.map(jnp.add, c, one(params, b)), None), zero, split
        )
    return jax.tree.map(lambda g: g / sums.weight, grads), sums, routed


def make_program(config: RunConfig, mesh: Mesh) -> Program:
    """Trace and shard the run's functions on `mesh`; compilation happens at the first call of each."""
    boxed = language_model.abstract(config.model)
    optimizer = make_optimizer(config.optimizer, boxed, config.training.steps)

    abstract_params = language_model.unbox(boxed)
    abstract_state = TrainState(
        abstract_params, jax.eval_shape(optimizer.init, abstract_params), jax.ShapeDtypeStruct((), jnp.int32)
    )
    params_sharding = parameter_shardings(boxed, mesh)
    state_sharding = _state_shardings(optimizer, abstract_state, params_sharding, mesh)
    rest = replicated(mesh)

    def init() -> TrainState:
        params = draw(boxed, jax.random.key(config.training.seed), params_sharding)
        moments = jax.jit(optimizer.init, out_shardings=state_sharding.moments)(params)
        return TrainState(params, moments, jax.device_put(jnp.zeros((), jnp.int32), rest))

    def train(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, dict[str, jax.Array]]:
        grads, sums, routed = gradients(config, state.params, batch)
        updates, moments = optimizer.update(grads, state.moments, state.params)
        params = balanced(config.model.moe, optax.apply_updates(state.params, updates), routed.statistics)
        metrics = {
            "loss_nats": sums.nats / sums.weight,
            "objective_nats": sums.loss / sums.weight + routed.auxiliary_loss,
            "gradient_norm": optax.tree.norm(grads),
            "learning_rate": learning_rate(config.optimizer, state.step, config.training.steps),
            **router_metrics(config.model.moe, routed),
        }
        return TrainState(params, moments, state.step + 1), metrics

    arrays = ("inputs", "targets", "weights", *(() if config.model.encoder is None else ("sources", "source_weights")))
    batch_shardings = dict.fromkeys(arrays, batch_sharding(mesh))
    return Program(
        init=init,
        train=jax.jit(
            train,
            in_shardings=(state_sharding, batch_shardings),
            out_shardings=(state_sharding, rest),
            donate_argnums=0,
        ),
        evaluate=jax.jit(
            lambda params, batch: loss_sums(config, params, batch)[0],
            in_shardings=(params_sharding, batch_shardings),
            out_shardings=rest,
        ),
        abstract_state=jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            abstract_state,
            state_sharding,
        ),
        batch_sharding=batch_sharding(mesh),
    )


def _state_shardings(optimizer: Any, state: TrainState, params_sharding: Any, mesh: Mesh) -> TrainState:
    """Moments are split like the parameters they belong to; counters are replicated."""
    moments = optax.tree.map_params(
        optimizer,
        lambda _, sharding: sharding,
        state.moments,
        params_sharding,
        transform_non_params=lambda _: replicated(mesh),
    )
    return TrainState(params_sharding, moments, replicated(mesh))
