"""What a model and a run cost, in closed form: parameters, FLOPs, bytes. Nothing is built or compiled.

All FLOPs are raw (a multiply-add is 2), and training is three times the forward pass (Chinchilla, appendix F). Only the
last two counts depend on the program that computes the model. Each mixer's file has its own closed forms.

- `flops`: the model's work; what budgets, laws and tables mean. Every matrix that a token is multiplied with, of the
  heads those that the run's objective trains, and, by mixer: attention: both L x L products, masked pairs included. A
  mixture of experts: the router and the experts that a token passes, whatever the capacity. Linear recurrences (S4, H3,
  Mamba, Mamba-2, RWKV-4): 2 for each number of the state that a token is written to and 2 for each that it is read
  from, as if run token by token; RWKV-7, whose delta rule reads and rewrites what it removes, twice that. LSTM and GRU:
  their matrices.
- `flops_causal`: the same with only the causal half of attention, the least a perfect kernel could execute.
- `flops_6nd`: 6 * params * tokens (Kaplan 2020), with all parameters.
- `executed_flops`: the matrix products of the program that trains, for utilisation: they depend on the algorithm and so
  on the backend. Equal to a walk over the jaxpr of the training step; what is computed again for a gradient (by
  `model.remat`, chunked attention or a kernel) is left out. Products of the optimizer's update are in it.
- `elementwise_flops`: what recurrences, convolutions and FFTs execute outside of matrix products, counted forward and
  taken three times.

Embedding look-ups, norms, softmax and other elementwise work count nothing under each of them.
"""

from dataclasses import dataclass, replace
from functools import cache

import jax
import jax.numpy as jnp

from research.config import Head, ModelConfig, RunConfig
from research.config.optimizers import Axes, Optimizer
from research.models import heads, language_model
from research.models.algorithms import resolved
from research.models.attention.attention import distance_table_params
from research.models.layers import is_boxed, norm_params
from research.models.mixers import Mixer, mixers_of

TRAINING_OVER_FORWARD = 3  # backward: one product for the inputs' gradient, one for the weights'


@dataclass(frozen=True)
class ModelCost:
    """Counts of one model; FLOPs are forward ones."""

    params: int
    embedding_params: int  # the input and position tables, and the head unless tied to the former
    active_params: int  # that one token uses
    matmul_params: int  # that one token is multiplied with, heads included
    sequence_flops: int  # one whole sequence, beyond 2 * matmul_params a token
    sequence_flops_causal: int
    length: int

    @property
    def forward_flops_per_token(self) -> float:
        """Mean over the positions of one sequence."""
        return 2 * self.matmul_params + self.sequence_flops / self.length

    @property
    def training_flops_per_token(self) -> float:
        return TRAINING_OVER_FORWARD * self.forward_flops_per_token

    @property
    def training_flops_per_sequence(self) -> int:
        """Exact integer, which the per-token mean need not be."""
        return TRAINING_OVER_FORWARD * (2 * self.matmul_params * self.length + self.sequence_flops)


@cache
def model_cost(model: ModelConfig, length: int, used: tuple[Head, ...] = ("vocabulary",)) -> ModelCost:
    """Closed-form counts of `model` on sequences of `length` tokens, which the heads in `used` read.

    An encoder is counted with `sequence_flops`: it reads a whole source (model.source_length) for each sequence.
    """
    stack = _stack(model)
    sequence = [mixer.sequence_flops(model, length) for mixer in stack]
    table = model.vocab_size * model.width
    embedding = table * (1 if model.tied_embeddings else 2) + model.width * (model.max_positions or 0)
    layer_norms = model.depth if model.shared_norm else len(stack)  # one per layer or per mixer
    norms = norm_params(model) * (layer_norms + 1 + model.embedding_norm)  # and the final one
    of_one_token = heads.sequence_flops(model, used)
    others = norms + distance_table_params(model) + embedding + heads.params(model)
    cost = ModelCost(
        params=sum(mixer.params(model) for mixer in stack) + others,
        embedding_params=embedding,
        active_params=sum((mixer.active_params or mixer.params)(model) for mixer in stack) + others,
        matmul_params=sum(mixer.matmul_params(model) for mixer in stack) + heads.matmul_params(model, used),
        sequence_flops=sum(sequence) + of_one_token,
        sequence_flops_causal=sum(int(flops * mixer.causal_share) for flops, mixer in zip(sequence, stack))
        + of_one_token,
        length=length,
    )
    return cost if model.encoder is None else _with_encoder(cost, model.encoder, table, model.source_length)


def _with_encoder(cost: ModelCost, encoder: ModelConfig, table: int, source_length: int) -> ModelCost:
    """The decoder's counts and those of its encoder, which shares the embedding table and has no head."""
    own = model_cost(replace(encoder, tied_embeddings=True), source_length)
    flops = 2 * (own.matmul_params - table) * source_length + own.sequence_flops  # every score: it sees both ways
    return replace(
        cost,
        params=cost.params + own.params - table,
        embedding_params=cost.embedding_params + own.embedding_params - table,
        active_params=cost.active_params + own.active_params - table,
        sequence_flops=cost.sequence_flops + flops,
        sequence_flops_causal=cost.sequence_flops_causal + flops,
    )


@dataclass(frozen=True)
class RunCost:
    """Counts of one training run; the names are columns of the runs table."""

    params: int
    embedding_params: int
    active_params: int
    tokens: int
    flops: int
    flops_causal: int
    flops_6nd: int
    flops_per_step: int
    state_bytes: int  # decode state of one sequence of the training length


def run_cost(config: RunConfig) -> RunCost:
    """Closed-form cost of training `config`, evaluation not counted: of all its steps, those included that another run
    has done for it (RunConfig.start), since the model has seen their tokens."""
    length = config.training.sequence_length
    model = model_cost(config.model, length, config.objective.heads)
    sequences = config.training.steps * config.training.batch_size
    masked = TRAINING_OVER_FORWARD * (model.sequence_flops - model.sequence_flops_causal)
    return RunCost(
        params=model.params,
        embedding_params=model.embedding_params,
        active_params=model.active_params,
        tokens=config.training.tokens,
        flops=sequences * model.training_flops_per_sequence,
        flops_causal=sequences * (model.training_flops_per_sequence - masked),
        flops_6nd=6 * model.params * config.training.tokens,
        flops_per_step=config.training.batch_size * model.training_flops_per_sequence,
        state_bytes=decode_state_bytes(config.model, length),
    )


@dataclass(frozen=True)
class ExecutedCost:
    """FLOPs of one training run as its program executes them; the names are columns of the runs table."""

    executed_flops: int
    elementwise_flops: int


def executed_cost(config: RunConfig, backend: str) -> ExecutedCost:
    """What training `config` executes in its own steps on `backend` ("cpu", "gpu" or "tpu"), which is not looked for: a
    plan asks no device, since to look for one is to take it."""
    length, model = config.training.sequence_length, config.model
    beyond, elementwise = _executed(resolved(model, backend, length), length)
    if model.encoder is not None:
        of_encoder = _executed(resolved(model.encoder, backend, model.source_length), model.source_length)
        beyond, elementwise = beyond + of_encoder[0], elementwise + of_encoder[1]
    sequences = config.own_steps * config.training.batch_size
    work = model_cost(model, length, config.objective.heads).training_flops_per_sequence
    return ExecutedCost(
        executed_flops=sequences * (work + TRAINING_OVER_FORWARD * beyond)
        + round(config.own_steps * update_flops(config)),
        elementwise_flops=sequences * TRAINING_OVER_FORWARD * elementwise,
    )


def _executed(model: ModelConfig, length: int) -> tuple[int, int]:
    """(matrix products beyond the model's work, which may be fewer; elementwise FLOPs) of one forward pass."""
    stack = _stack(model)
    beyond = sum(mixer.executed_flops(model, length) - mixer.sequence_flops(model, length) for mixer in stack)
    return beyond, sum(mixer.elementwise_flops(model, length) for mixer in stack)


def train_state_bytes(config: RunConfig) -> int:
    """Parameters, gradients and what the optimizer keeps, over all devices; activations come on top."""
    kept = sum(config.optimizer.kept_bytes(shape, axes) for shape, axes in _parameters(config.model))
    return kept + 2 * 4 * model_cost(config.model, config.training.sequence_length).params


def update_flops(config: RunConfig) -> float:
    """FLOPs of the matrix products of one update of all parameters, which the optimizer's own formula needs."""
    if type(config.optimizer).update_flops is Optimizer.update_flops:
        return 0.0
    return sum(config.optimizer.update_flops(shape, axes) for shape, axes in _parameters(config.model))


@cache
def _parameters(model: ModelConfig) -> tuple[tuple[tuple[int, ...], Axes], ...]:
    """Shape and matrix axes of each parameter; the model is traced, for no closed form has its shapes."""
    boxes = jax.tree.leaves(language_model.abstract(model), is_leaf=is_boxed)
    return tuple((box.value.shape, box.matrix) for box in boxes)


@cache
def decode_state_bytes(model: ModelConfig, length: int) -> int:
    """Decode state of one sequence of `length` tokens in the compute dtype."""
    bytes_per_value = jnp.dtype(model.compute_dtype).itemsize
    return sum(mixer.state_bytes(model, length, bytes_per_value) for mixer in _stack(model))


def _stack(model: ModelConfig) -> list[Mixer]:
    return [mixer for layer in model.layers for mixer in mixers_of(layer, model)]
