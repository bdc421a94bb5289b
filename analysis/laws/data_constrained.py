"""Laws of loss when training passes over the same tokens more than once."""

import jax.numpy as jnp

from analysis.laws.definition import Law, Parameter

# Logarithms beyond which 1 - exp(-x) is x, or one, in float64.
SMALL, LARGE = -30.0, 50.0


def _log_worn(log_x):
    """log(1 - exp(-x)), with derivatives that neither a small nor a large x overflows."""
    return jnp.log(-jnp.expm1(-jnp.exp(jnp.clip(log_x, SMALL, LARGE)))) + jnp.minimum(log_x - SMALL, 0.0)


def _log_worth(log_base, log_total, decay):
    """What `total` units are worth of which `base` are different: each repeat is worth less, by exp(-1 / decay).

    In logarithms, since decay and repeats may both be beyond 1e100 where only their ratio matters.
    """
    log_passes = jnp.maximum(log_total - log_base, jnp.exp(SMALL))
    log_repeats = log_passes + jnp.log(-jnp.expm1(-log_passes))
    log_decay = jnp.log(decay)
    return log_base + jnp.logaddexp(0.0, log_decay + _log_worn(log_repeats - log_decay))


def _data_constrained(p, x):
    # U_N: the compute-optimal size for the unique tokens, by the same law without repeats (as the paper does).
    log_scale = jnp.log(p["alpha"] * p["A"] / (p["beta"] * p["B"])) / (p["alpha"] + p["beta"])
    ratio = p["beta"] / p["alpha"]
    log_params, log_tokens, log_unique = (jnp.log(x[name]) for name in ("params", "tokens", "unique_tokens"))
    log_needed = jnp.minimum(log_params, (1.0 + ratio) * log_scale + ratio * log_unique)
    size = _log_worth(log_needed, log_params, p["R_N"])
    data = _log_worth(jnp.minimum(log_tokens, log_unique), log_tokens, p["R_D"])
    return p["E"] + p["A"] * jnp.exp(-p["alpha"] * size) + p["B"] * jnp.exp(-p["beta"] * data)


DATA_CONSTRAINED = Law(
    name="data_constrained",
    formula="loss = E + A / N'^alpha + B / D'^beta, N' = U_N + U_N R_N (1 - exp((1 - params / U_N) / R_N)), "
    "D' = U_D + U_D R_D (1 - exp((1 - tokens / U_D) / R_D)), U_D = unique_tokens, U_N = min(params, the optimal "
    "params for U_D)",
    citation="Muennighoff et al. 2023, arXiv:2305.16264, section 3; their R_D* and R_N* with A, B, E, alpha "
    "and beta held at a fit to runs without repeats",
    inputs=("params", "tokens", "unique_tokens"),
    output="loss_nats",
    parameters=(
        Parameter("E", "nats per token", "loss of an infinite model on infinite data", (1.0, 2.0)),
        Parameter(
            "A", "nats per token * parameters^alpha", "scale of the loss that comes from finite size", (30.0, 500.0)
        ),
        Parameter(
            "B", "nats per token * tokens^beta", "scale of the loss that comes from finite data", (100.0, 1500.0)
        ),
        Parameter("alpha", "1", "exponent of params", (0.25, 0.4)),
        Parameter("beta", "1", "exponent of tokens", (0.25, 0.4)),
        Parameter(
            "R_D", "passes", "passes after which repeated tokens have lost most of their worth", (3.0, 15.0, 90.0)
        ),
        Parameter(
            "R_N", "sizes", "sizes above U_N after which more params have lost most of their worth", (1.0, 5.0, 25.0)
        ),
    ),
    predict=_data_constrained,
)

LAWS = (DATA_CONSTRAINED,)
