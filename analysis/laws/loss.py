"""Laws of pretraining loss: in parameters and tokens, in compute, in shape."""

import dataclasses

import jax
import jax.numpy as jnp

from analysis.laws.definition import Law, Parameter, power

EXPONENT_STARTS = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0, 1.2)
SLOW_EXPONENT_STARTS = (0.02, 0.05, 0.1, 0.2, 0.4)  # of a whole loss, its irreducible part included
SCALE_STARTS = (1e-3, 1.0, 1e3, 1e6, 1e9, 1e12)  # of a size at which a whole loss would be one nat

_E = Parameter("E", "nats per token", "loss of an infinite model on infinite data")
_A = Parameter("A", "nats per token * parameters^alpha", "scale of the loss that comes from finite size")
_B = Parameter("B", "nats per token * tokens^beta", "scale of the loss that comes from finite data")


def _scale(column: str, unit: str, meaning: str, starts: tuple[float, ...] = SCALE_STARTS) -> Parameter:
    return Parameter(f"{column}_scale", unit, meaning, starts, start_unit=column)


CHINCHILLA = Law(
    name="chinchilla",
    formula="loss = E + A / params^alpha + B / tokens^beta",
    citation="Hoffmann et al. 2022, arXiv:2203.15556, section 3.3 (approach 3)",
    inputs=("params", "tokens"),
    output="loss_nats",
    parameters=(
        _E,
        _A,
        _B,
        Parameter("alpha", "1", "exponent of params", EXPONENT_STARTS),
        Parameter("beta", "1", "exponent of tokens", EXPONENT_STARTS),
    ),
    predict=lambda p, x: p["E"] + p["A"] * power(x["params"], -p["alpha"]) + p["B"] * power(x["tokens"], -p["beta"]),
)

CHINCHILLA_TIED = Law(
    name="chinchilla_tied",
    formula="loss = E + A / params^alpha + B / tokens^alpha",
    citation="Hoffmann et al. 2022, arXiv:2203.15556, section 3.3, with alpha = beta as in Muennighoff et al. 2023, "
    "arXiv:2305.16264, appendix A",
    inputs=("params", "tokens"),
    output="loss_nats",
    parameters=(
        _E,
        _A,
        dataclasses.replace(_B, unit="nats per token * tokens^alpha"),
        Parameter("alpha", "1", "exponent of params and of tokens", EXPONENT_STARTS),
    ),
    predict=lambda p, x: p["E"] + p["A"] * power(x["params"], -p["alpha"]) + p["B"] * power(x["tokens"], -p["alpha"]),
)

CHINCHILLA_KAPLAN = Law(
    name="chinchilla_kaplan",
    formula="loss = E + ((params_scale / params)^(alpha / beta) + tokens_scale / tokens)^beta",
    citation="Kaplan et al. 2020, arXiv:2001.08361, equation 1.5, with an irreducible loss",
    inputs=("params", "tokens"),
    output="loss_nats",
    parameters=(
        _E,
        _scale("params", "parameters", "size whose reducible loss is one nat", (1e-4, 1.0, 1e4)),
        _scale("tokens", "tokens", "data whose reducible loss is one nat", (1e-4, 1.0, 1e4)),
        Parameter("alpha", "1", "exponent of params", (0.1, 0.3, 0.6)),
        Parameter("beta", "1", "exponent of tokens", (0.1, 0.3, 0.6)),
    ),
    predict=lambda p, x: p["E"] + _kaplan(p, x),
)

KAPLAN = Law(
    name="kaplan",
    formula="loss = ((params_scale / params)^(alpha / beta) + tokens_scale / tokens)^beta",
    citation="Kaplan et al. 2020, arXiv:2001.08361, equation 1.5",
    inputs=("params", "tokens"),
    output="loss_nats",
    parameters=(
        _scale("params", "parameters", "size whose loss is one nat on infinite data"),
        _scale("tokens", "tokens", "data whose loss is one nat in an infinite model"),
        Parameter("alpha", "1", "exponent of params", SLOW_EXPONENT_STARTS),
        Parameter("beta", "1", "exponent of tokens", SLOW_EXPONENT_STARTS),
    ),
    predict=lambda p, x: _kaplan(p, x),
)


def _kaplan(p, x):
    # The sum in logarithms: where alpha / beta is large its terms have no second derivative in float64.
    log_size = jnp.log(p["params_scale"] / x["params"]) * p["alpha"] / p["beta"]
    return jnp.exp(p["beta"] * jnp.logaddexp(log_size, jnp.log(p["tokens_scale"] / x["tokens"])))


def _one_input(name: str, column: str, unit: str, equation: str) -> Law:
    scale = f"{column}_scale"
    return Law(
        name=name,
        formula=f"loss = ({scale} / {column})^alpha",
        citation=f"Kaplan et al. 2020, arXiv:2001.08361, equation {equation}",
        inputs=(column,),
        output="loss_nats",
        parameters=(
            _scale(column, unit, f"{column} whose loss is one nat, all else infinite"),
            Parameter("alpha", "1", f"exponent of {column}", SLOW_EXPONENT_STARTS),
        ),
        predict=lambda p, x: power(p[scale] / x[column], p["alpha"]),
    )


KAPLAN_PARAMS = _one_input("kaplan_params", "params", "parameters", "1.1")
KAPLAN_TOKENS = _one_input("kaplan_tokens", "tokens", "tokens", "1.2")
KAPLAN_COMPUTE = _one_input("kaplan_compute", "flops", "FLOP", "1.3")

FRONTIER = Law(
    name="frontier",
    formula="optimum = scale * flops^exponent",
    citation="Hoffmann et al. 2022, arXiv:2203.15556, section 3.2 (approach 2)",
    inputs=("flops",),
    output="optimum",
    parameters=(
        Parameter("scale", "unit of the optimum * FLOP^-exponent", "compute-optimal params or tokens at one FLOP"),
        Parameter(
            "exponent",
            "1",
            "exponent of flops: a for params and b for tokens in the paper",
            (0.3, 0.5, 0.7),
            low=float("-inf"),
        ),
    ),
    predict=lambda p, x: p["scale"] * power(x["flops"], p["exponent"]),
)

LOSS_FRONTIER = Law(
    name="loss_frontier",
    formula="loss = E + scale / flops^exponent",
    citation="Kaplan et al. 2020, arXiv:2001.08361, section 6.1, with an irreducible loss as in Henighan et al. 2020, "
    "arXiv:2010.14701",
    inputs=("flops",),
    output="loss_nats",
    parameters=(
        Parameter("E", "nats per token", "loss at infinite compute"),
        Parameter("scale", "nats per token * FLOP^exponent", "scale of the reducible loss"),
        Parameter("exponent", "1", "exponent of flops", (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)),
    ),
    predict=lambda p, x: p["E"] + p["scale"] * power(x["flops"], -p["exponent"]),
)


def _over_training(p, x):
    root_flops = power(6.0 * x["params"] * x["tokens"], -p["eta"])
    ratio = power(x["tokens"] / x["params"], p["eta"])
    return p["E"] + (p["a"] * ratio + p["b"] / ratio) * root_flops


OVER_TRAINING = Law(
    name="over_training",
    formula="loss = E + (a M^eta + b M^-eta) C^-eta, with C = 6 params tokens and M = tokens / params",
    citation="Gadre et al. 2024, arXiv:2403.08540, equation 4",
    inputs=("params", "tokens"),
    output="loss_nats",
    parameters=(
        _E,
        Parameter("a", "nats per token * FLOP^eta", "scale of the loss that comes from finite size"),
        Parameter("b", "nats per token * FLOP^eta", "scale of the loss that comes from finite data"),
        Parameter("eta", "1", "exponent of compute; half of alpha = beta", (0.03, 0.08, 0.13, 0.2, 0.3, 0.45, 0.6)),
    ),
    predict=_over_training,
)

WIDTH_DEPTH = Law(
    name="width_depth",
    formula="loss = E + A / width^alpha + B / depth^beta + C / tokens^gamma",
    citation="McLeish et al. 2025, arXiv:2502.06857, without its term in params, which width^2 * depth determines",
    inputs=("width", "depth", "tokens"),
    output="loss_nats",
    parameters=(
        _E,
        Parameter("A", "nats per token * channels^alpha", "scale of the loss that comes from finite width"),
        Parameter("B", "nats per token * layers^beta", "scale of the loss that comes from finite depth"),
        Parameter("C", "nats per token * tokens^gamma", "scale of the loss that comes from finite data"),
        Parameter("alpha", "1", "exponent of width", (0.2, 0.5, 0.8, 1.2, 1.8)),
        Parameter("beta", "1", "exponent of depth", (0.2, 0.5, 0.8, 1.2, 1.8)),
        Parameter("gamma", "1", "exponent of tokens", (0.1, 0.25, 0.4, 0.6, 0.9)),
    ),
    predict=lambda p, x: (
        p["E"]
        + p["A"] * power(x["width"], -p["alpha"])
        + p["B"] * power(x["depth"], -p["beta"])
        + p["C"] * power(x["tokens"], -p["gamma"])
    ),
)


def _broken(p, x):
    # In logarithms: at a sharp break (flops / break_flops)^(1 / sharpness) is beyond the largest number, and its
    # second derivative is long before.
    log_bend = jax.nn.softplus(jnp.log(x["flops"] / p["break_flops"]) / p["sharpness"])
    log_power = -p["before"] * jnp.log(x["flops"]) - p["change"] * p["sharpness"] * log_bend
    return p["E"] + p["scale"] * jnp.exp(log_power)


BROKEN = Law(
    name="broken",
    formula="loss = E + scale flops^-before (1 + (flops / break_flops)^(1 / sharpness))^(-change sharpness)",
    citation="Caballero et al. 2023, arXiv:2210.14891, equation 1 with one break",
    inputs=("flops",),
    output="loss_nats",
    parameters=(
        Parameter("E", "nats per token", "loss at infinite compute"),
        Parameter("scale", "nats per token * FLOP^before", "scale of the loss before the break"),
        Parameter("before", "1", "exponent before the break", (0.02, 0.1, 0.2, 0.4), low=float("-inf")),
        Parameter("change", "1", "exponent after the break minus before", (-0.1, 0.1, 0.3), low=float("-inf")),
        Parameter("break_flops", "FLOP", "compute at the break", (1e-2, 0.1, 1.0, 10.0, 1e2), start_unit="flops"),
        Parameter("sharpness", "1", "width of the break; 0 is a corner", (0.1, 0.5), high=10.0),
    ),
    predict=_broken,
)

LAWS = (
    CHINCHILLA,
    CHINCHILLA_TIED,
    CHINCHILLA_KAPLAN,
    KAPLAN_PARAMS,
    KAPLAN_TOKENS,
    KAPLAN_COMPUTE,
    KAPLAN,
    FRONTIER,
    LOSS_FRONTIER,
    OVER_TRAINING,
    WIDTH_DEPTH,
    BROKEN,
)
