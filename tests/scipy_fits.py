"""Random tables of any law, and the best that scipy finds on them from many random starts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.optimize
from planted_laws import PLANTED

from analysis.fit import HUBER, Points
from analysis.laws import Law, evaluate

NOISES = (0.003, 0.01, 0.03)
PERTURBATION = 0.2  # of the planted constants: of the logarithm of a positive one, of the value of any other


def random_table(law: Law, generator: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Simulated runs of `law` with constants near the planted ones, and the constants."""
    planted = PLANTED[law.name]
    moved = law.pack(np.array([planted.truth[name] for name in law.names]))
    size = np.where([np.isfinite(p.low) or np.isfinite(p.high) for p in law.parameters], 1.0, np.abs(moved))
    truth = law.natural(moved + PERTURBATION * size * generator.standard_normal(len(moved)))
    count = int(generator.integers(len(law.parameters) + 4, planted.points + 5))
    inputs = planted.inputs(generator, count)
    errors = generator.choice(NOISES) * generator.standard_normal(count)
    output = law.output_of(law.target(evaluate(law, truth, inputs)) + errors)
    return pd.DataFrame({**inputs, law.output: output}), truth


POLISHED = 3


@functools.partial(jax.jit, static_argnames=("law",))
def _predict(law: Law, theta: jax.Array, inputs: dict) -> tuple[jax.Array, jax.Array]:
    """The law on the scale of its residuals, and its derivatives by each variable."""

    def twice(theta):
        predicted = law.predict_target(theta, inputs)
        return predicted, predicted

    jacobian, predicted = jax.jacfwd(twice, has_aux=True)(theta)
    return predicted, jacobian


def scipy_best(law: Law, points: Points, truth: np.ndarray, generator: np.random.Generator, starts: int) -> float:
    """The lowest Huber sum that scipy reaches from random starts, half of them near the constants that were planted.

    L-BFGS-B goes down from every start, and BFGS on from the lowest ends, as it gets nearer to a minimum.
    """
    target, count = law.target(points.output), len(points.runs)
    padded = PLANTED[law.name].points + 5  # one shape, so one compilation a law
    rows = np.minimum(np.arange(padded), count - 1)

    with jax.enable_x64(True):
        inputs = {name: jnp.asarray(values[rows]) for name, values in points.inputs.items()}

        def value_and_gradient(theta):
            predicted, jacobian = (np.asarray(part)[:count] for part in _predict(law, theta, inputs))
            r = predicted - target
            inside = np.minimum(np.abs(r), HUBER.delta)
            return np.sum(inside * (np.abs(r) - inside / 2)), np.clip(r, -HUBER.delta, HUBER.delta) @ jacobian

        def ends(method, first, **options):
            with np.errstate(all="ignore"):
                found = scipy.optimize.minimize(value_and_gradient, first, jac=True, method=method, options=options)
            return (found.fun if np.isfinite(found.fun) else np.inf), found.x

        centre, reached = law.pack(truth), []
        for i in range(starts):
            start = centre + generator.standard_normal(len(centre)) * (0.3 if i % 2 else 1.5)
            reached.append(ends("L-BFGS-B", start, ftol=1e-8, gtol=1e-9, maxiter=200))
        reached.sort(key=lambda end: end[0])
        return min(min(end[0], ends("BFGS", end[1], gtol=1e-9)[0]) for end in reached[:POLISHED])
