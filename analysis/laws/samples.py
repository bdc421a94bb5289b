"""Laws of what more samples of an answer buy: coverage, the best of n, and sampling in place of training."""

import jax
import jax.numpy as jnp

from analysis.laws.definition import Law, Parameter, power

ANY = float("-inf")
SHIFT = 10  # from there on the terms below leave 2e-14
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)  # of log Gamma, by odd powers of 1 / x

COVERAGE = Law(
    name="coverage",
    formula="log coverage = a samples^b",
    citation="Brown et al. 2024, arXiv:2407.21787: log c = a k^b; isoflop samples makes tables for it",
    inputs=("samples",),
    output="coverage",
    parameters=(
        Parameter("a", "1", "log of the coverage of one sample", (-8.0, -4.0, -2.0, -1.0, -0.5, -0.1), ANY, 0.0),
        Parameter("b", "1", "exponent of samples: more of them solve more", (-0.8, -0.4, -0.2, -0.1), ANY, 0.0),
    ),
    predict=lambda p, x: jnp.exp(p["a"] * power(x["samples"], p["b"])),
)


def log_gamma_ratio(x: jax.Array, more: jax.Array) -> jax.Array:
    """log(Gamma(x + more) / Gamma(x)) for x > 0, more >= 0, by Stirling's series from x + SHIFT on.

    The difference of two logarithms of Gamma loses what they have in common: at x = 10^4, eleven of sixteen digits.
    """
    below = sum(jnp.log1p(more / (x + i)) for i in range(SHIFT))
    x = x + SHIFT
    y = x + more
    series = sum(term * (y ** (-1 - 2 * i) - x ** (-1 - 2 * i)) for i, term in enumerate(STIRLING))
    return (x - 0.5) * jnp.log1p(more / x) + more * (jnp.log(y) - 1.0) + series - below


def log_unsolved(alpha: jax.Array, beta: jax.Array, samples: jax.Array) -> jax.Array:
    """log E[(1 - p)^samples] for p ~ Beta(alpha, beta): log(B(alpha, beta + samples) / B(alpha, beta))."""
    return log_gamma_ratio(beta, alpha) - log_gamma_ratio(beta + samples, alpha)


COVERAGE_BETA_BINOMIAL = Law(
    name="coverage_beta_binomial",
    formula="coverage = 1 - B(alpha, beta + samples) / B(alpha, beta)",
    citation="Schaeffer et al. 2025, arXiv:2502.17578: problems are solved with probability p ~ Beta(alpha, beta), so "
    "that 1 - coverage falls as samples^-alpha; isoflop samples fits it by the likelihood of each problem's successes",
    inputs=("samples",),
    output="coverage",
    parameters=(
        Parameter("alpha", "1", "exponent of the tail, small where many problems are hard", (0.1, 0.3, 1.0, 3.0)),
        Parameter("beta", "1", "how rare problems are that one sample solves", (0.3, 1.0, 3.0, 10.0, 100.0)),
    ),
    predict=lambda p, x: -jnp.expm1(log_unsolved(p["alpha"], p["beta"], x["samples"])),
)


def divergence(samples: jax.Array) -> jax.Array:
    """KL divergence in nats of the best of `samples` from one sample, for scores without ties."""
    return jnp.log(samples) - (samples - 1.0) / samples


def _best_of_n(p, x):
    distance = jnp.sqrt(divergence(x["samples"]))
    return distance * (p["alpha"] - p["beta"] * distance)


BEST_OF_N = Law(
    name="best_of_n",
    formula="gain = d (alpha - beta d), with d^2 = log(samples) - (samples - 1) / samples",
    citation="Gao et al. 2022, arXiv:2210.10760, the form for best of n, whose d^2 is the KL divergence in nats; the "
    "gain is greatest at d = alpha / (2 beta)",
    inputs=("samples",),
    output="gain",
    parameters=(
        Parameter("alpha", "1 / sqrt(nats)", "gain by choosing while the score is right", low=ANY),
        Parameter("beta", "1 / nats", "what choosing by a score that is not the aim takes away"),
    ),
    predict=_best_of_n,
    residual="linear",
)


def _worth(p, x):
    size = jnp.log(x["flops"] / p["middle"]) + p["worth"] * jnp.log(x["samples"])
    return jax.nn.sigmoid(p["k"] * size)


SAMPLES_WORTH = Law(
    name="samples_worth",
    formula="success = 1 / (1 + (middle / (flops samples^worth))^k)",
    citation="This project: the odds are powers of training FLOPs and of samples, so that n samples are worth n^worth "
    "times the FLOPs, as in Jones 2021, arXiv:2104.03113, where compute at play takes the place of training",
    inputs=("flops", "samples"),
    output="success",
    parameters=(
        Parameter("middle", "FLOP", "FLOPs at which one sample solves half", (0.1, 1.0, 10.0, 1e3), start_unit="flops"),
        Parameter("k", "1", "exponent of the odds in training FLOPs", (0.1, 0.3, 0.6, 1.2)),
        Parameter("worth", "1", "exponent of samples as FLOPs", (0.1, 0.5, 1.0), low=ANY),
    ),
    predict=_worth,
    residual="linear",
)

LAWS = (COVERAGE, COVERAGE_BETA_BINOMIAL, BEST_OF_N, SAMPLES_WORTH)
