import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.optimize
from planted_laws import PLANTED
from planted_tables import TRUTH, planted_loss, planted_table

from analysis.fit import HUBER, HUBER_LIKELIHOOD, LEAST_SQUARES, FitError, Objective, batched, fit, select
from analysis.fit.batched import Problems, solve, target_jacobian
from analysis.fit.newton import derivatives_of, minimise
from analysis.laws import CHINCHILLA, FRONTIER, LAWS, LOSS_FRONTIER, evaluate, find
from analysis.runs_table import complete


def scipy_objective(points, weights, delta=1e-3):
    """The Chinchilla objective and its gradient, written out in numpy for scipy, so that the oracle is not ours."""
    log_n, log_d = np.log(points.inputs["params"]), np.log(points.inputs["tokens"])

    def value_and_gradient(theta):
        e, a, b, alpha, beta = np.exp(np.clip(theta, -300, 300))
        size, data = a * np.exp(-alpha * log_n), b * np.exp(-beta * log_d)
        law = e + size + data
        r = np.log(law) - np.log(points.output)
        inside = np.minimum(np.abs(r), delta)
        jacobian = np.stack([np.full_like(law, e), size, data, -alpha * log_n * size, -beta * log_d * data]) / law
        return np.sum(weights * inside * (np.abs(r) - inside / 2)), jacobian @ (weights * np.clip(r, -delta, delta))

    return value_and_gradient


def best_of_scipy(points, weights, generator, starts):
    objective, best = scipy_objective(points, weights), np.inf
    for _ in range(starts):
        alpha, beta = generator.uniform(0.1, 1.0, 2)
        scales = np.exp([alpha * np.log(points.inputs["params"]).mean(), beta * np.log(points.inputs["tokens"]).mean()])
        start = np.log([generator.uniform(0.3, 2), *(scales * generator.uniform(0.2, 2, 2)), alpha, beta])
        with np.errstate(all="ignore"):
            found = scipy.optimize.minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-9})
        best = min(best, found.fun)
    return best


def random_table(generator):
    count = int(generator.integers(9, 40))
    params, tokens = 10 ** generator.uniform(5, 9, count), 10 ** generator.uniform(6, 10, count)
    truth = {
        "E": generator.uniform(0.5, 2.5),
        "alpha": generator.uniform(0.2, 0.6),
        "beta": generator.uniform(0.2, 0.6),
    }
    truth |= {
        "A": generator.uniform(0.2, 1) * 1e7 ** truth["alpha"],
        "B": generator.uniform(0.2, 1) * 1e8 ** truth["beta"],
    }
    noise = generator.choice([0.003, 0.01, 0.03]) * generator.standard_normal(count)
    return pd.DataFrame(
        {"params": params, "tokens": tokens, "loss_nats": planted_loss(params, tokens, truth) * np.exp(noise)}
    )


def test_solver_finds_the_minimum_of_rosenbrock():
    with jax.enable_x64(True):
        rosenbrock = derivatives_of(lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2)
        found = minimise(rosenbrock, jnp.array([-1.2, 1.0]), jnp.zeros(2))
        np.testing.assert_allclose(found.theta, [1.0, 1.0], atol=1e-7)
        assert found.steps < 60


def test_noise_free_constants_come_back():
    result = fit(CHINCHILLA, planted_table(noise=0.0))
    # Residuals at rounding (1e-16) times the condition number (about 300) leave 1e-12; 1e-7 allows for flatness.
    for name, value in TRUTH.items():
        assert result.values[name] == pytest.approx(value, rel=1e-7)
    assert result.starts_at_optimum == result.starts


@pytest.mark.slow
def test_never_worse_than_the_best_of_fifty_scipy_starts():
    generator = np.random.default_rng(0)
    for _ in range(6):
        table = random_table(generator)
        points, _ = select(CHINCHILLA, complete(table))
        best = best_of_scipy(points, np.ones(len(table)), generator, starts=50)
        # 1e-12: the sum of 40 terms is rounded differently by numpy and by XLA.
        assert fit(CHINCHILLA, table).objective_value <= best * (1 + 1e-12)


def test_resampled_fits_are_never_worse_than_scipy_from_the_same_start():
    points, _ = select(CHINCHILLA, planted_table())
    result = fit(CHINCHILLA, planted_table())
    generator = np.random.default_rng(1)
    weights = generator.multinomial(18, np.ones(18) / 18, size=40).astype(float)
    start = CHINCHILLA.pack(result.array())
    problems = Problems(np.tile(np.log(points.output), (40, 1)), weights, np.tile(start, (40, 1)))
    _, values, gradients, _ = solve(CHINCHILLA, points.inputs, problems, HUBER)
    for weight, value in zip(weights, values, strict=True):
        found = scipy.optimize.minimize(
            scipy_objective(points, weight), start, jac=True, method="BFGS", options={"gtol": 1e-10}
        )
        assert value <= found.fun * (1 + 1e-12) + 1e-18
    assert (
        np.max(np.abs(gradients)) < 1e-6
    )  # a residual beyond delta pulls with 1e-3, so this is 1e-3 of one point's pull


@pytest.mark.parametrize("objective", [HUBER, HUBER_LIKELIHOOD])
def test_a_problem_ends_where_it_does_alone_whatever_waits_beside_it(objective, monkeypatch):
    """Some problems need many times the steps of others, so lanes are refilled at different times; the queue is short,
    so that one call does not hold all. One variable is held in some, and some are undefined where they start."""
    points, generator = select(CHINCHILLA, planted_table())[0], np.random.default_rng(2)
    truth, free = CHINCHILLA.pack(np.array([TRUTH[name] for name in CHINCHILLA.names])), np.ones((37, 5))
    starts = truth + generator.standard_normal((37, 5)) * generator.choice([0.01, 1.0], (37, 1))
    free[::3, 3], starts[5] = 0.0, np.nan
    problems = Problems(np.tile(np.log(points.output), (37, 1)), generator.poisson(1.0, (37, 18)) + 0.1, starts, free)
    monkeypatch.setattr(batched, "QUEUE_POINTS", 32 * 8)
    together = solve(CHINCHILLA, points.inputs, problems, objective)
    assert np.flatnonzero(np.isnan(together.value)).tolist() == [5]
    np.testing.assert_array_equal(together.theta[::3, 3], starts[::3, 3])
    for i in range(37):
        one = Problems(*(None if part is None else part[i : i + 1] for part in problems))
        alone = solve(CHINCHILLA, points.inputs, one, objective)
        for mine, other in zip(together, alone, strict=True):
            assert other is None or np.array_equal(mine[i], other[0], equal_nan=True)


def test_objective_value_and_gradient_match_numpy():
    result = fit(CHINCHILLA, planted_table())
    points, _ = select(CHINCHILLA, planted_table())
    value, gradient = scipy_objective(points, np.ones(18))(CHINCHILLA.pack(result.array()))
    assert result.objective_value == pytest.approx(value, rel=1e-12)
    assert result.gradient_norm < 1e-9 and np.max(np.abs(gradient)) < 1e-9
    assert result.objective == HUBER and str(HUBER) == "huber(delta = 0.001)"


def test_objectives_have_different_optima_and_a_wide_huber_is_least_squares():
    table = planted_table(noise=0.01)
    squares = fit(CHINCHILLA, table, LEAST_SQUARES)
    wide = fit(CHINCHILLA, table, Objective("huber", 10.0))
    assert squares.objective_value == pytest.approx(wide.objective_value, rel=1e-9)
    assert squares.values["alpha"] != pytest.approx(fit(CHINCHILLA, table).values["alpha"], rel=1e-3)


@pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.name)
def test_every_law_is_consistent(law):
    """Linear where it says so, positive parameters survive packing, and the Jacobian equals central differences."""
    planted = PLANTED[law.name]
    inputs = planted.inputs(np.random.default_rng(0), 7)
    values = np.array([planted.truth[name] for name in law.names])
    # A logit and back costs a few roundings of the distance to a bound, at most 8 times the value here.
    np.testing.assert_allclose(law.natural(law.pack(values)), values, rtol=5e-15)
    linear = np.array([not parameter.starts for parameter in law.parameters])
    once, twice, never = (evaluate(law, np.where(linear, factor * values, values), inputs) for factor in (1, 2, 0))
    np.testing.assert_allclose(twice - never, 2 * (once - never), rtol=1e-14)
    theta, step = law.pack(values), 1e-6
    moved = [
        law.target(evaluate(law, law.natural(theta + sign * step * np.eye(len(theta))), inputs)) for sign in (1, -1)
    ]
    # Central differences err by step^2 times third derivatives (up to 20^3 here) plus rounding / step.
    np.testing.assert_allclose(target_jacobian(law, theta, inputs).T, (moved[0] - moved[1]) / (2 * step), atol=2e-8)
    assert find(law.name) is law and law.formula and law.citation


def test_power_laws_are_recovered():
    flops = np.geomspace(1e15, 1e20, 6)
    exact = fit(FRONTIER, pd.DataFrame({"flops": flops, "optimum": 0.3 * flops**0.49}), LEAST_SQUARES)
    assert exact.values == pytest.approx({"scale": 0.3, "exponent": 0.49}, rel=1e-9)
    loss = fit(LOSS_FRONTIER, pd.DataFrame({"flops": flops, "loss_nats": 1.7 + 400 * flops**-0.15}), LEAST_SQUARES)
    assert loss.values == pytest.approx({"E": 1.7, "scale": 400.0, "exponent": 0.15}, rel=1e-6)


def test_every_row_left_out_has_its_reason():
    table = planted_table()
    table.loc[0, "loss_nats"] = np.nan
    table.loc[1, "loss_nats"] = -1.0
    table.loc[2, "held_out"] = True
    table.loc[3, "status"] = "partial"
    table.loc[4, "params"] = np.inf
    table["failure_step"] = pd.array([None] * 18, dtype="Int64")
    table["failure_reason"] = None
    table.loc[5, ["status", "failure_step", "failure_reason"]] = ["failed", 7, "loss is nan"]
    table = pd.concat([table, table.iloc[[6]].assign(run="copy")], ignore_index=True)
    result = fit(CHINCHILLA, table)
    assert {item.run: item.reason for item in result.left_out} == {
        "run-0": "loss_nats is missing or NaN",
        "run-1": "loss_nats = -1 is not positive and finite",
        "run-2": "held out",
        "run-3": "status partial",
        "run-4": "params = inf is not positive and finite",
        "run-5": "status failed at step 7: loss is nan",
        "copy": "exact copy of an earlier row",
    }
    assert result.used == tuple(f"run-{i}" for i in range(6, 18))


def test_tables_that_do_not_determine_the_law_are_refused():
    table = planted_table()
    with pytest.raises(FitError, match=r"points = 5: .* 5 parameters and needs at least 6 .* Fix: add runs"):
        fit(CHINCHILLA, table[:5])
    with pytest.raises(FitError, match=r"params = 1e\+06 in all 18 usable points"):
        fit(CHINCHILLA, table.assign(params=1e6))
    with pytest.raises(FitError, match="all 6 usable points lie on one line"):
        fit(CHINCHILLA, table[:6])
    with pytest.raises(FitError, match="missing column 'loss_nats' of law 'chinchilla'"):
        fit(CHINCHILLA, table.drop(columns="loss_nats"))
    with pytest.raises(ValueError, match=r"law = 'chincilla': no such law. Fix: use one of chinchilla"):
        find("chincilla")


def test_no_step_leads_to_where_the_derivatives_are_no_numbers():
    """Below zero this parabola still has values, and no derivatives: a minimisation that went there could not end."""

    def function(theta):
        return (theta[0] + 1.0) ** 2 + 0.0 * jnp.sqrt(jnp.maximum(theta[0], 0.0))

    with jax.enable_x64(True):
        found = minimise(derivatives_of(function), jnp.array([1.5]), jnp.zeros(1))
        theta, gradient = float(found.theta[0]), float(found.gradient[0])
    assert 0 < theta < 1e-6 and gradient == pytest.approx(2.0, abs=1e-5)
