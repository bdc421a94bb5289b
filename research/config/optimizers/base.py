"""What every optimizer has: the schedule of its rate, decoupled decay, clipping; and what each says of itself."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from research.config.validation import check, check_choices, check_positive, check_range

if TYPE_CHECKING:
    import optax

FLOAT32_BYTES = 4
WHOLE_STEPS = {"warmup_fraction": "warmup_steps", "decay_fraction": "decay_steps"}  # shares of a run's steps


@dataclass(frozen=True)
class Axes:
    """The dimensions of a parameter: those that tell matrices apart (layers, experts), those that are summed over,
    and the outputs. `into` and `out` are empty for what is no matrix between widths: tables, gains, taps, routers."""

    stacked: tuple[int, ...]
    into: tuple[int, ...]
    out: tuple[int, ...]

    def shapes(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """(matrices, rows, columns) of a parameter of `shape`."""
        return tuple(math.prod(shape[axis] for axis in part) for part in (self.stacked, self.into, self.out))


@dataclass(frozen=True)
class Optimizer:
    """The fields that all share. Decay is decoupled (Loshchilov 2019) and of the matrices and taps alone; global-norm
    clipping comes first of all.

    A subclass adds a `name`, which is its tag in JSON, its own fields, and `direction`. No module here imports jax when
    it is imported: configs are read by processes that train nothing.
    """

    learning_rate: float = 3e-3  # the schedule's peak
    dynamics_learning_rate: float = 1e-3  # highest peak of what state spaces evolve by; same schedule (S4's `lr`)
    weight_decay: float = 0.1  # multiplies the current learning rate, as in optax and torch
    clip_norm: float | None = 1.0
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    warmup_fraction: float = 0.05  # of all steps, linear from zero
    decay_fraction: float = 0.2  # wsd only: the last share of steps, linear (Haegele 2024)
    final_fraction: float = 0.1  # learning rate at the end, relative to the peak

    def __post_init__(self):
        check_choices(self, "optimizer")
        check_positive(self, "optimizer", "learning_rate dynamics_learning_rate clip_norm")
        check_range(self, "optimizer", "warmup_fraction decay_fraction final_fraction", 0, 1)
        check_range(self, "optimizer", "weight_decay", 0)
        check(
            self.schedule != "wsd" or self.warmup_fraction + self.decay_fraction <= 1,
            "optimizer.decay_fraction",
            self.decay_fraction,
            f"warmup_fraction = {self.warmup_fraction} + decay_fraction must not exceed 1",
            "lower one",
        )

    def numbers(self, steps: int) -> dict[str, float]:
        """What the compiled step takes as arguments, so that runs which differ there alone share a program: every field
        that is a real number, shares of the run in whole steps (at least one), and `steps`."""
        found = {name: getattr(self, name) for name in _real_fields(type(self))}
        shares = {of: max(1, round(found.pop(name) * steps)) for name, of in WHOLE_STEPS.items()}
        return {name: float(value) for name, value in (found | shares).items() if value is not None} | {
            "steps": float(steps)
        }

    def without_numbers(self) -> "Optimizer":
        """This optimizer with each of its `numbers` at the default: equal for runs whose steps are compiled alike."""
        given = [name for name in _real_fields(type(self)) if getattr(self, name) is not None]
        return replace(self, **{field.name: field.default for field in fields(self) if field.name in given})

    def direction(self, numbers: dict[str, Any], axes: Any) -> "optax.GradientTransformation":
        """What turns gradients into steps that the rate multiplies: float32 trees like the parameters'.

        numbers: as `numbers` gives them, or traced; axes: the `Axes` of each parameter, a tree like theirs.
        """
        raise NotImplementedError(f"{type(self).__name__} has no direction. Fix: use one of the optimizers.")

    def wrapped(
        self, update: "optax.GradientTransformation", numbers: dict[str, Any], axes: Any, rate: Callable[[Any], Any]
    ) -> "optax.GradientTransformation":
        """The whole update, from gradients that are clipped to what is added to the parameters; rate: of each step."""
        return update

    def rate_scale(self, axes: Axes, rate: float, growth: float) -> float:
        """What the learning rate of a parameter is multiplied with in a model whose fan-in is `growth` times the base
        model's. rate: what the parametrisation says for steps of Adam's kind, whose every entry is of about one size
        and which all add up in a product: research/optim/parametrisation.py."""
        return rate

    def evaluated(self, moments: Any, params: Any) -> Any:
        """The parameters of which the losses are measured, and which a trained model has."""
        return params

    def kept_bytes(self, shape: tuple[int, ...], axes: Axes) -> int:
        """Bytes of what is kept from step to step of a parameter of `shape`, beside itself."""
        raise NotImplementedError(f"{type(self).__name__} keeps what it does not say. Fix: use one of the optimizers.")

    def update_flops(self, shape: tuple[int, ...], axes: Axes) -> float:
        """FLOPs of the matrix products in one update of a parameter of `shape`, beside its gradient's."""
        return 0.0


@cache
def _real_fields(cls: type) -> tuple[str, ...]:
    hints = get_type_hints(cls)
    return tuple(field.name for field in fields(cls) if float in (hints[field.name], *get_args(hints[field.name])))
