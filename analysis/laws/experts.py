"""Laws of loss for models that route tokens to experts."""

import jax.numpy as jnp

from analysis.laws.definition import Law, Parameter, power

ANY = float("-inf")


def saturated(experts, start, limit):
    """Experts as they count, from `start` at one expert up to `limit` at infinitely many (Clark et al. 2022).

    NaN where start is not below limit: experts would count backwards, and no step of a fit goes there.
    """
    growth = jnp.where(start < limit, 1.0 / start - 1.0 / limit, jnp.nan)
    return 1.0 / (1.0 / (experts - 1.0 + 1.0 / growth) + 1.0 / limit)


def _routed(p, x):
    size = jnp.log10(x["active_params"])
    experts = jnp.log10(saturated(x["experts"], p["E_start"], p["E_max"]))
    return power(10.0, p["a"] * size + p["b"] * experts + p["c"] * size * experts + p["d"])


ROUTED = Law(
    name="routed",
    formula="log10 loss = a log10 N + b log10 E + c log10 N log10 E + d, with N = active_params and "
    "1 / E = 1 / (experts - 1 + 1 / (1 / E_start - 1 / E_max)) + 1 / E_max",
    citation="Clark et al. 2022, arXiv:2202.01169, equation 1 with saturated experts",
    inputs=("active_params", "experts"),
    output="loss_nats",
    parameters=(
        Parameter("a", "1", "exponent of active_params at one effective expert", (-0.05, -0.09), low=ANY),
        Parameter("b", "1", "exponent of effective experts at one parameter", (-0.12,), low=ANY),
        Parameter("c", "1", "change of either exponent per factor of ten of the other", (0.01,), low=ANY),
        Parameter("d", "1", "log10 of the loss of one parameter and one effective expert", (0.8, 1.1, 1.4), low=ANY),
        Parameter("E_start", "experts", "effective experts of a model with one", (1.5, 3.0, 6.0)),
        Parameter("E_max", "experts", "effective experts of a model with infinitely many", (60.0, 250.0, 1000.0)),
    ),
    predict=_routed,
)

GRANULARITY = Law(
    name="granularity",
    formula="loss = c + (g / granularity^gamma + a) / params^alpha + b / tokens^beta",
    citation="Krajewski et al. 2024, arXiv:2402.07871, the law with granularity",
    inputs=("params", "tokens", "granularity"),
    output="loss_nats",
    parameters=(
        Parameter("c", "nats per token", "loss of an infinite model on infinite data"),
        Parameter("g", "nats per token * parameters^alpha", "scale of what coarse experts add to it"),
        Parameter("a", "nats per token * parameters^alpha", "scale of the loss that comes from finite size"),
        Parameter("b", "nats per token * tokens^beta", "scale of the loss that comes from finite data"),
        Parameter("gamma", "1", "exponent of granularity", (0.2, 0.5, 1.0)),
        Parameter("alpha", "1", "exponent of params", (0.1, 0.2, 0.4, 0.7)),
        Parameter("beta", "1", "exponent of tokens", (0.1, 0.2, 0.4, 0.7)),
    ),
    predict=lambda p, x: (
        p["c"]
        + (p["g"] * power(x["granularity"], -p["gamma"]) + p["a"]) * power(x["params"], -p["alpha"])
        + p["b"] * power(x["tokens"], -p["beta"])
    ),
)

LAWS = (ROUTED, GRANULARITY)
