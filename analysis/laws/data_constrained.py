"""Laws of loss when training passes over the same tokens more than once."""

import jax.numpy as jnp

from analysis.laws.definition import Law, Parameter, power


def _worth(base, repeats, decay):
    """What `base` units are worth with (1 + repeats) * base of them: each repeat is worth less, by exp(-1 / decay)."""
    return base - base * decay * jnp.expm1(-repeats / decay)  # expm1: decay may be 1e15 times the repeats


def _data_constrained(p, x):
    # U_N: the compute-optimal size for the unique tokens, by the same law without repeats (as the paper does). In
    # logarithms, since at small exponents it is beyond the largest number, and the lesser of the two is still params.
    log_scale = jnp.log(p["alpha"] * p["A"] / (p["beta"] * p["B"])) / (p["alpha"] + p["beta"])
    ratio = p["beta"] / p["alpha"]
    log_params = jnp.log(x["params"])
    log_needed = jnp.minimum(log_params, (1.0 + ratio) * log_scale + ratio * jnp.log(x["unique_tokens"]))
    unique = jnp.minimum(x["tokens"], x["unique_tokens"])
    params = _worth(jnp.exp(log_needed), jnp.expm1(log_params - log_needed), p["R_N"])
    tokens = _worth(unique, x["tokens"] / unique - 1.0, p["R_D"])
    return p["E"] + p["A"] * power(params, -p["alpha"]) + p["B"] * power(tokens, -p["beta"])


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
            "R_N", "1", "sizes above U_N after which more params have lost most of their worth", (1.0, 5.0, 25.0)
        ),
    ),
    predict=_data_constrained,
)

LAWS = (DATA_CONSTRAINED,)
