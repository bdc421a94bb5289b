"""Learning rate against step: linear warmup, then constant, cosine (Loshchilov 2017) or warmup-stable-decay."""

from typing import assert_never

import jax
import jax.numpy as jnp

from research.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: jax.Array, steps: int) -> jax.Array:
    """The rate of 0-based `step` of `steps`, float32.

    Warmup reaches the peak at its last step, without a step at rate zero. Cosine and wsd (linear decay over the last
    `decay_fraction`, Haegele 2024) end at `final_fraction` of the peak on the last step.
    """
    warmup = max(1, round(config.warmup_fraction * steps))
    ramp = jnp.minimum(1.0, (step + 1.0) / warmup)
    if config.schedule == "constant":
        shape = jnp.ones(())
    elif config.schedule == "cosine":
        progress = jnp.clip((step + 1.0 - warmup) / max(1, steps - warmup), 0.0, 1.0)
        shape = config.final_fraction + (1 - config.final_fraction) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
    elif config.schedule == "wsd":
        decay = max(1, round(config.decay_fraction * steps))
        progress = jnp.clip((step + 1.0 - (steps - decay)) / decay, 0.0, 1.0)
        shape = 1 - (1 - config.final_fraction) * progress
    else:
        assert_never(config.schedule)  # a word of the config without its branch here
    return config.learning_rate * ramp * shape
