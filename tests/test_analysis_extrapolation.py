"""Optima, what leaving them costs, and the cheapest run over a life: against brute force and printed numbers."""

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
from planted_tables import BUDGETS, TRUTH, planted_loss, planted_optimum, planted_table

from analysis.compute import SIX_ND, FlopRule, cheapest_runs, efficient_runs, flop_rule, tokens_for_loss
from analysis.compute.frontier import departures
from analysis.fit import LEAST_SQUARES, FitError
from analysis.intervals import estimate
from analysis.laws import CHINCHILLA, Law, Parameter, evaluate, find, power
from analysis.runs_table import complete
from analysis.sampling import Sampling
from analysis.studies import cost_of_departing, fit_table, lifetime_optimum, optimum
from analysis.tables.files import TableError

VALUES = np.array([[TRUTH[name] for name in CHINCHILLA.names]])
# Hoffmann et al. 2022, equation 10, with the digits that Sardana et al. 2024 compute with.
HOFFMANN = np.array([[1.69, 406.4, 410.7, 0.336, 0.283]])


@pytest.fixture(scope="module")
def study():
    return fit_table(planted_table(), sampling=Sampling(200))


@pytest.fixture(scope="module")
def shaped():
    """Sizes whose width, depth and embeddings are known: params = 12 depth width^2 + embeddings."""
    width = np.array([64, 128, 256, 512, 1024, 2048.0])
    depth, embedding = width / 32, 1000 * width
    params = 12 * depth * width**2 + embedding
    return pd.DataFrame(
        {
            "params": params,
            "tokens": 20 * params,
            "embedding_params": embedding,
            "width": width,
            "depth": depth,
            "sequence_length": 1024.0,
        }
    )


def numeric_optimum(rule, flops, low=5.0, high=30.0):
    """log(params) of the least planted loss at a budget, by scipy."""
    found = scipy.optimize.minimize_scalar(
        lambda u: planted_loss(np.exp(u), rule.tokens(flops, np.exp(u))), bounds=(low, high), method="bounded",
        options={"xatol": 1e-9},
    )  # fmt: skip
    return found.x, found.fun


@pytest.mark.parametrize("convention", ["6nd", "kaplan", "attention", "table", "6.2 * params^0.97"])
def test_optimum_under_every_convention_equals_numeric_minimisation(shaped, convention):
    table = shaped.assign(flops=7 * shaped["params"] ** 0.98 * shaped["tokens"])
    rule = flop_rule(convention, table)
    for flops in (1e13, 1e17):
        params, tokens, loss = efficient_runs(CHINCHILLA, VALUES, rule, flops)
        low = np.log(max(rule.smallest_params, 1e2))
        log_params, least = numeric_optimum(rule, flops, low)
        # A minimum is flat: a value known to 1e-16 places it to about 1e-8 of its width.
        assert np.log(params[0]) == pytest.approx(log_params, abs=1e-6)
        assert loss[0] <= least * (1 + 1e-15)
        assert rule.flops(params[0], tokens[0]) == pytest.approx(flops, rel=1e-12)


def test_conventions_price_what_they_say(shaped):
    params, tokens = shaped["params"], shaped["tokens"]
    attention = flop_rule("attention", shaped)
    scores = 12 * shaped["depth"] * shaped["width"] * 1024
    np.testing.assert_allclose(
        attention.flops(params, tokens), (6 * params + scores) * tokens, rtol=attention.largest_error * 1.000001
    )
    # Embeddings are a power of all parameters here only nearly, and the rule says how nearly.
    kaplan = flop_rule("kaplan", shaped)
    exact = 6 * (params - shaped["embedding_params"]) * tokens
    np.testing.assert_allclose(kaplan.flops(params, tokens), exact, rtol=kaplan.largest_error * 1.000001)
    assert kaplan.correction < 0 < attention.correction and str(SIX_ND) == "flops = 6 * params * tokens"
    half = kaplan.smallest_params
    assert kaplan.per_token(half) == pytest.approx(3 * half, rel=1e-9)
    filled = flop_rule("table", complete(shaped, ("params", "tokens")))  # without flops of its own: 6 * params * tokens
    assert (filled.coefficient, filled.params_exponent) == pytest.approx((6, 1), rel=1e-9)
    assert flop_rule("6.2 * params^0.97", shaped) == FlopRule(6.2, 0.97)


@pytest.mark.parametrize(
    ("convention", "change", "message"),
    [
        ("gpt", lambda t: t, r"flop rule = 'gpt': must be one of table, 6nd, kaplan, attention, or FLOPs per token"),
        ("-6 * params", lambda t: t, "with positive numbers"),
        ("6 * params^0", lambda t: t, "with positive numbers"),
        ("1e * params", lambda t: t, "with positive numbers"),
        ("kaplan", lambda t: t.drop(columns="embedding_params"), "column 'embedding_params' is missing"),
        ("kaplan", lambda t: t.assign(embedding_params=np.nan), "'embedding_params' has a value that is not positive"),
        ("kaplan", lambda t: t.assign(embedding_params=1e15), "embedding_params = 1e\\+15 of a run with params"),
        ("attention", lambda t: t.drop(columns="depth"), "column 'depth' is missing"),
    ],
)
def test_wrong_conventions_are_refused(shaped, convention, change, message):
    with pytest.raises(FitError, match=message):
        flop_rule(convention, change(shaped))


def test_an_optimum_says_which_rule_it_is_under_and_the_rules_differ(study):
    own, other = optimum(study, 1e13), optimum(study, 1e13, rule=FlopRule(6.0, 1.05))
    assert own.rule == study.flop_rule and other.rule == FlopRule(6.0, 1.05)
    assert other.params.value < own.params.value
    with pytest.raises(FitError, match="approach 2 holds under the table's own FLOPs"):
        optimum(study, 1e13, approach=2, rule=FlopRule(6.0, 1.05))


def test_departures_equal_brute_force():
    flops, factors = 1e14, (0.05, 0.5, 3.0)
    best = planted_optimum(flops)
    least = planted_loss(best, flops / 6 / best)
    penalties, multiples = departures(CHINCHILLA, VALUES, SIX_ND, flops, factors)
    for factor, penalty, multiple in zip(factors, penalties[:, 0], multiples[:, 0], strict=True):
        size = factor * best
        # Two losses near 2 are subtracted: 1e-15 absolute is a few roundings.
        assert penalty == pytest.approx(planted_loss(size, flops / 6 / size) - least, abs=5e-15)
        left = least - TRUTH["E"] - TRUTH["A"] * size ** -TRUTH["alpha"]
        if left <= 0:
            assert np.isinf(multiple)
        else:
            assert multiple == pytest.approx(6 * size * (TRUTH["B"] / left) ** (1 / TRUTH["beta"]) / flops, rel=1e-9)
    assert np.isinf(multiples[0, 0]) and (multiples[1:, 0] > 1).all()


def test_the_cost_of_departing_has_intervals_that_hold_the_truth(study):
    away = cost_of_departing(study, 1e13, (0.25, 4.0))
    truth = departures(CHINCHILLA, VALUES, SIX_ND, 1e13, (0.25, 4.0))
    for found, penalty, multiple in zip(away, *truth, strict=True):
        assert found.loss_penalty.contains(penalty[0]) and found.compute.contains(multiple[0])
    assert away[0].tokens_per_param == pytest.approx(away[1].tokens_per_param * 16**2, rel=1e-9)
    with pytest.raises(FitError, match="factor = 0.0: must be positive"):
        cost_of_departing(study, 1e13, (0.0,))


def test_tokens_for_a_loss_invert_the_law():
    tokens = np.array([1e6, 1e9])
    loss = planted_loss(1e7, tokens)
    found = tokens_for_loss(CHINCHILLA, np.repeat(VALUES, 2, 0), np.full(2, 1e7), loss)
    # The loss is flat in tokens: its last digit moves tokens by about 1e-16 / (d log loss / d log tokens).
    np.testing.assert_allclose(found, tokens, rtol=1e-11)
    assert np.isinf(tokens_for_loss(CHINCHILLA, VALUES, np.array([1e2]), np.array([1.5]))).all()


def test_a_loss_that_only_infinitely_many_tokens_reach_is_not_reached():
    """Under E + (a / params + b / tokens)^gamma half the optimal size ends at the very loss of the optimum."""
    names = ("E", "a", "b", "gamma")
    law = Law(
        "nested",
        "loss = E + (a / params + b / tokens)^gamma",
        "made for this test",
        ("params", "tokens"),
        "loss_nats",
        tuple(Parameter(name, "1", "", (1.0,)) for name in names),
        lambda p, x: p["E"] + power(p["a"] / x["params"] + p["b"] / x["tokens"], p["gamma"]),
    )
    low, high = [0.1, 1e3, 1e3, 0.1], [2.5, 1e8, 1e8, 0.9]
    values = np.exp(np.random.default_rng(0).uniform(np.log(low), np.log(high), (200, 4)))
    multiples = departures(law, values, SIX_ND, 1e19, np.array([0.5, 0.6, 2.0]))[1]
    assert np.isinf(multiples[0]).all()
    # a / N = b / D = u at the optimum, and f N needs b / D = (2 - 1 / f) u: f / (2 - 1 / f) times the budget.
    np.testing.assert_allclose(multiples[1:], np.broadcast_to([[1.8], [4 / 3]], (2, 200)), rtol=1e-6)


def test_the_cheapest_run_over_a_life_beats_a_brute_force_grid():
    loss, served = 1.5, 1e12
    params, tokens, training, total = (found[0] for found in cheapest_runs(CHINCHILLA, VALUES, SIX_ND, loss, served))
    assert planted_loss(params, tokens) == pytest.approx(loss, rel=1e-12)
    assert training == pytest.approx(6 * params * tokens) and total == pytest.approx(training + 2 * params * served)
    sizes = np.geomspace(params / 30, params * 30, 200_001)
    left = loss - TRUTH["E"] - TRUTH["A"] * sizes ** -TRUTH["alpha"]
    with np.errstate(invalid="ignore", divide="ignore"):
        needed = np.where(left > 0, (TRUTH["B"] / left) ** (1 / TRUTH["beta"]), np.inf)
    costs = 6 * sizes * needed + 2 * sizes * served
    assert total <= costs.min() * (1 + 1e-12)
    # Neighbours on the grid are 3.4e-5 apart.
    assert np.log(params / sizes[np.argmin(costs)]) == pytest.approx(0, abs=3.5e-5)


def test_without_serving_the_cheapest_run_is_the_compute_optimal_one():
    params, tokens, loss = efficient_runs(CHINCHILLA, VALUES, SIX_ND, 1e15)
    found = cheapest_runs(CHINCHILLA, VALUES, SIX_ND, loss, 0.0)
    np.testing.assert_allclose([found[0][0], found[1][0]], [params[0], tokens[0]], rtol=1e-7)
    assert found[2][0] == found[3][0] == pytest.approx(1e15, rel=1e-12)


def test_sardana_et_al_print_the_same_figures():
    """The README of their code (loss 1.947, 2e12 tokens served), and the caption of figure 1 (13B model, 2e12)."""
    best = [found[0] for found in cheapest_runs(CHINCHILLA, HOFFMANN, SIX_ND, 1.947, 2e12)]
    plain = [found[0] for found in cheapest_runs(CHINCHILLA, HOFFMANN, SIX_ND, 1.947, 0.0)]
    assert (f"{best[0]:.3e}", f"{best[1]:.3e}") == ("2.418e+10", "2.657e+12")
    plain_total = plain[2] + 2 * plain[0] * 2e12
    shares = best[0] / plain[0], best[1] / plain[1], best[3] / plain_total
    assert [f"{100 * share:.2f}" for share in shares] == ["70.96", "146.77", "95.22"]

    chinchilla_13b = scipy.optimize.brentq(
        lambda log_flops: efficient_runs(CHINCHILLA, HOFFMANN, SIX_ND, np.exp(log_flops))[0][0] - 13e9, 45, 60
    )
    loss = efficient_runs(CHINCHILLA, HOFFMANN, SIX_ND, np.exp(chinchilla_13b))[2]
    params, _, _, total = (found[0] for found in cheapest_runs(CHINCHILLA, HOFFMANN, SIX_ND, loss, 2e12))
    saved = np.exp(chinchilla_13b) + 2 * 13e9 * 2e12 - total
    assert (f"{params:.0e}", f"{saved:.1e}") == ("7e+09", "1.7e+22")
    assert round(100 * saved / (total + saved)) == 17


def test_a_lifetime_has_intervals_and_refuses_what_the_law_never_reaches(study):
    target = planted_loss(planted_optimum(1e14), 1e14 / 6 / planted_optimum(1e14))
    best = lifetime_optimum(study, target, 1e9)
    truth = [found[0] for found in cheapest_runs(CHINCHILLA, VALUES, SIX_ND, target, 1e9)]
    assert best.params.contains(truth[0]) and best.tokens.contains(truth[1]) and best.total_flops.contains(truth[3])
    assert best.params.value < best.training_params.value and best.tokens.value > best.training_tokens.value
    assert 0 < best.saving.low < best.saving.high < 1
    assert best.reach.warning.startswith("extrapolates")
    with pytest.raises(FitError, match=r"loss = 0.5: the law reaches it at no size. .* irreducible loss, 1\.\d+"):
        lifetime_optimum(study, 0.5, 1e9)
    with pytest.raises(FitError, match="inference_tokens = -1.0: must be positive"):
        lifetime_optimum(study, target, -1)


def test_budgets_and_served_tokens_that_are_no_counts_are_refused(study):
    for ask in (optimum, cost_of_departing):
        with pytest.raises(TableError, match="flops = 10: below 1000, which is no count.* as flops=1e21"):
            ask(study, 10)
    with pytest.raises(TableError, match="inference_tokens = 2: below 1000, which is no count"):
        lifetime_optimum(study, study.ranges["loss_nats"][1], 2)


def test_what_goes_far_says_so(study):
    near, far = optimum(study, 9.9 * BUDGETS[-1]), optimum(study, 11 * BUDGETS[-1])
    assert not near.reach.warning and "extrapolates 11 times beyond the fitted compute" in far.reach.warning
    assert "more than 10" in far.reach.warning
    strict = fit_table(planted_table(), sampling=Sampling(20), far_factor=2)
    assert "more than 2" in optimum(strict, 4 * BUDGETS[-1]).reach.warning
    with pytest.raises(FitError, match=r"far_factor = 0.5: must be at least 1"):
        fit_table(planted_table(), sampling=Sampling(20), far_factor=0.5)


def test_hyperparameters_are_read_at_the_optimum(study):
    params, tokens = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e4, 1e7, 5), np.geomspace(1e6, 1e9, 5)))
    noise = np.exp(0.02 * np.random.default_rng(0).standard_normal(len(params)))
    cells = pd.DataFrame({"params": params, "tokens": tokens})
    rate = estimate(
        find("learning_rate_params_tokens"),
        cells.assign(learning_rate=2.0 * params**-0.7 * tokens**0.3 * noise),
        objective=LEAST_SQUARES,
        sampling=Sampling(200),
    )
    batch = estimate(
        find("batch_tokens_flops"),
        cells.assign(flops=6 * params * tokens, batch_tokens=0.5 * (6 * params * tokens) ** 0.4 * noise),
        objective=LEAST_SQUARES,
        sampling=Sampling(50),
    )
    best = optimum(study, 1e13, hyperparameters=(rate, batch))
    true_params = planted_optimum(1e13)
    assert best.hyperparameters["learning_rate"].contains(2.0 * true_params**-0.7 * (1e13 / 6 / true_params) ** 0.3)
    assert best.hyperparameters["batch_tokens"].contains(0.5 * 1e13**0.4)
    assert not any(reached.warning for reached in best.hyperparameter_reach.values())
    valleys = optimum(study, 1e13, approach=2, hyperparameters=(rate, batch))
    assert valleys.params.value != pytest.approx(best.params.value, rel=1e-3)  # else the next line could not fail
    at = {"params": valleys.params.value, "tokens": valleys.tokens.value}
    assert valleys.hyperparameters["learning_rate"].value == pytest.approx(rate.at(at, 0.9).value, rel=1e-9)
    assert valleys.hyperparameters["learning_rate"].contains(best.hyperparameters["learning_rate"].value)
    assert valleys.hyperparameters["batch_tokens"].value == best.hyperparameters["batch_tokens"].value  # flops alone
    far = optimum(study, 6e18, hyperparameters=(rate, batch))  # the largest fitted is 6 * 1e7 * 1e9
    reached = far.hyperparameter_reach
    assert "extrapolates 100 times beyond the fitted flops, more than 10" in reached["batch_tokens"].warning
    beyond = max(far.params.value / 1e7, far.tokens.value / 1e9)
    assert reached["learning_rate"].factor == pytest.approx(beyond) and reached["learning_rate"].warning
    tasks = cells.assign(task_loss=np.linspace(1, 2, 25), accuracy=np.linspace(0.7, 0.3, 25) + 0.01 * noise)
    accuracy = estimate(find("task_accuracy"), tasks, sampling=Sampling(20))
    with pytest.raises(FitError, match="law = 'task_accuracy': needs 'task_loss', which an optimum does not have"):
        optimum(study, 1e13, hyperparameters=(accuracy,))


def test_a_law_with_more_inputs_is_optimised_where_they_are_given():
    """Muennighoff et al. 2023: with the unique tokens given, a budget beyond one pass buys a larger model."""
    law = find("data_constrained").fix(**TRUTH, R_N=5.0)
    generator = np.random.default_rng(0)
    params, repeats = np.repeat(np.geomspace(1e5, 1e7, 5), 6), np.tile([0.5, 1, 3, 10, 30, 100.0], 5)
    unique = np.full(30, 1e7)
    inputs = {"params": params, "tokens": unique * repeats, "unique_tokens": unique * generator.uniform(0.5, 2, 30)}
    loss = evaluate(law, np.array([15.0]), inputs) * np.exp(0.002 * generator.standard_normal(30))
    table = pd.DataFrame({**inputs, "loss_nats": loss})
    closed = fit_table(table, law=law, sampling=Sampling(50))
    assert closed.optima_note.endswith("Fix: give it, as --given unique_tokens=VALUE.")
    with pytest.raises(FitError, match="an optimum needs unique_tokens"):
        optimum(closed, 1e15)
    plenty = fit_table(table, law=law, sampling=Sampling(50), given={"unique_tokens": 1e12})
    scarce = fit_table(table, law=law, sampling=Sampling(50), given={"unique_tokens": 1e7})
    assert optimum(plenty, 1e15).params.value == pytest.approx(planted_optimum(1e15), rel=1e-9)
    assert optimum(scarce, 1e15).loss_nats.low > optimum(plenty, 1e15).loss_nats.value
    with pytest.raises(FitError, match="given experts: not a further input of law 'data_constrained'"):
        fit_table(table, law=law, sampling=Sampling(50), given={"experts": 8})
