"""Learning rate against step: linear warmup, then constant, cosine (Loshchilov 2017) or warmup-stable-decay."""

from collections.abc import Mapping
from typing import Any, assert_never

import jax
import jax.numpy as jnp


def learning_rate(schedule: str, numbers: Mapping[str, Any], step: jax.Array) -> jax.Array:
    """The rate of 0-based `step` under an optimizer's schedule and its numbers (Optimizer.numbers), float32.

    Warmup reaches the peak at its last step, without a step at rate zero. Cosine and wsd (linear decay over the last
    `decay_steps`, Haegele 2024) end at `final_fraction` of the peak on the last step.
    """
    steps, warmup, final = numbers["steps"], numbers["warmup_steps"], numbers["final_fraction"]
    ramp = jnp.minimum(1.0, (step + 1.0) / warmup)
    if schedule == "constant":
        shape = jnp.ones(())
    elif schedule == "cosine":
        progress = jnp.clip((step + 1.0 - warmup) / jnp.maximum(1.0, steps - warmup), 0.0, 1.0)
        shape = final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
    elif schedule == "wsd":
        decay = numbers["decay_steps"]
        progress = jnp.clip((step + 1.0 - (steps - decay)) / decay, 0.0, 1.0)
        shape = 1 - (1 - final) * progress
    else:
        assert_never(schedule)  # a word of the config without its branch here
    return numbers["learning_rate"] * ramp * shape
