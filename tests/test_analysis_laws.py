import dataclasses
import decimal
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planted_laws import PLANTED
from planted_tables import TRUTH, planted_table

from analysis import json_values
from analysis.fit import HUBER_LIKELIHOOD, Fit, fit, select
from analysis.intervals import profile
from analysis.laws import CHINCHILLA, LAWS, Law, LawError, Parameter, describe, described, evaluate, find, load, power
from analysis.laws.checks import check_law
from analysis.report import study_report
from analysis.report.files import write_study
from analysis.sampling import Sampling
from analysis.studies import Study, backtest_of, fit_table, predict


@pytest.mark.parametrize("low, high", [(0.0, np.inf), (-np.inf, np.inf), (-2.0, 3.0), (1.5, np.inf), (-np.inf, 4.0)])
def test_bounds_hold_and_variables_invert(low, high):
    parameter = Parameter("x", "1", "any", low=low, high=high)
    with jax.enable_x64(True):
        inside = np.asarray(parameter.natural(jnp.linspace(-5.0, 5.0, 11)))
        # Back and forth costs a few roundings of numbers up to 150 times the value (e^5).
        np.testing.assert_allclose(parameter.variable(inside), np.linspace(-5.0, 5.0, 11), atol=1e-13)
    assert ((inside > low) & (inside < high)).all()
    if np.isfinite(low):
        assert np.isfinite(parameter.variable(np.array(low)))


def test_a_held_parameter_keeps_its_value_and_comes_back_from_json():
    law = CHINCHILLA.fix(E=TRUTH["E"], alpha=TRUTH["alpha"])
    assert law.names == ("A", "B", "beta") and law == CHINCHILLA.fix(E=TRUTH["E"]).fix(alpha=TRUTH["alpha"])
    assert hash(law) == hash(CHINCHILLA.fix(E=TRUTH["E"], alpha=TRUTH["alpha"]))
    result = fit(law, planted_table(noise=0.0))
    assert result.law == law and dict(law.fixed) == {"E": TRUTH["E"], "alpha": TRUTH["alpha"]}
    # Residuals at rounding (1e-16) times the condition number (below 300) leave 1e-12; 1e-8 allows for flatness.
    assert result.values == pytest.approx({name: TRUTH[name] for name in law.names}, rel=1e-8)
    again = json_values.from_dict(Fit, json_values.to_dict(result))
    assert again == result and again.law == law
    inputs = {"params": np.array([1e6]), "tokens": np.array([1e8])}
    full = [{**dict(law.fixed), **result.values}[name] for name in CHINCHILLA.names]
    np.testing.assert_allclose(evaluate(law, result.array(), inputs), evaluate(CHINCHILLA, full, inputs), rtol=1e-15)


def test_the_likelihood_names_its_scale():
    result = fit(CHINCHILLA, planted_table(noise=0.01), HUBER_LIKELIHOOD)
    assert str(result.objective) == "huber_likelihood(delta = 0.001)" and result.scale > 0
    assert json_values.from_dict(Fit, json_values.to_dict(result)) == result


def test_what_cannot_be_held_is_refused():
    with pytest.raises(LawError, match="gamma: no such free parameter of law 'chinchilla'. Fix: use one of E, A, B"):
        CHINCHILLA.fix(gamma=1.0)
    with pytest.raises(LawError, match="alpha = -1: must lie between 0 and inf in law 'chinchilla'"):
        CHINCHILLA.fix(alpha=-1.0)
    for value in (np.inf, np.nan):
        with pytest.raises(LawError, match=f"alpha = {value}: must be finite in law 'chinchilla'. Fix: use a"):
            CHINCHILLA.fix(alpha=value)
    with pytest.raises(LawError, match="B, alpha, beta: all that is free of law 'chinchilla' is held.*Fix: leave one"):
        CHINCHILLA.fix(E=1.0, A=1.0).fix(B=1.0, alpha=0.3, beta=0.3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("LAW = (\n", "line 1: SyntaxError: '\\(' was never closed. Fix: correct it there"),
        ("\0", "cannot be read: SyntaxError: .*null bytes"),
        ("\n1 / 0\n", "line 2: ZeroDivisionError: division by zero. Fix"),
        ("def f():\n    assert False\nf()\n", "line 2: AssertionError. Fix"),
        ("import no_such_module\n", "line 1: ModuleNotFoundError: No module named 'no_such_module'. Fix"),
        ("import sys\nsys.exit(0)\n", "line 2: SystemExit: 0. Fix"),
        (
            "import sys\nsys.path.insert(0, __file__[:-6])\nimport half_a_module\n",
            "half_a_module.py, line 1: SyntaxError",
        ),
    ],
)
def test_a_law_file_that_does_not_run_is_named_with_its_line(text, message, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "half_a_module.py").write_text("LAW = (\n")
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(LawError, match=f"law = '{tmp_path}/own.py': .*{message}"):
        load(f"{tmp_path / 'own.py'}:LAW")


def test_a_linear_residual_fits_outputs_of_either_sign():
    law = Law(
        "accuracy_like",
        "y = low + gain sigmoid(slope (x - 5))",
        "made for this test",
        ("x",),
        "y",
        (
            Parameter("low", "1", "floor", low=-np.inf),
            Parameter("gain", "1", "height"),
            Parameter("slope", "1", "steepness", (0.3, 1.0, 3.0), high=20.0),
        ),
        lambda p, x: p["low"] + p["gain"] * jax.nn.sigmoid(p["slope"] * (x["x"] - 5.0)),
        residual="linear",
        may_be_zero=("x",),
    )
    table = planted_table()[[]].assign(x=np.linspace(0, 10, 18))
    table["y"] = evaluate(law, np.array([-0.5, 1.2, 1.7]), {"x": table["x"].to_numpy()})
    assert fit(law, table).values == pytest.approx({"low": -0.5, "gain": 1.2, "slope": 1.7}, rel=1e-7)


SATURATING = Law(
    "saturating",
    "loss = E + A exp(-k log10 tokens) + B / params^alpha",
    "made for this test",
    ("params", "tokens"),
    "loss_nats",
    (
        Parameter("E", "nats per token", "floor"),
        Parameter("A", "nats per token", "scale of data"),
        Parameter("B", "nats per token * parameters^alpha", "scale of size"),
        Parameter("k", "1", "rate", (0.3, 1.0, 2.0)),
        Parameter("alpha", "1", "exponent of params", (0.1, 0.3, 0.6)),
    ),
    lambda p, x: p["E"] + p["A"] * jnp.exp(-p["k"] * jnp.log10(x["tokens"])) + p["B"] * power(x["params"], -p["alpha"]),
)


@pytest.mark.slow
def test_a_law_of_ones_own_needs_no_list(tmp_path):
    """tokens^(-k / ln 10) is Chinchilla's term in tokens: fit, intervals, back-test and report must agree with it."""
    table = planted_table(noise=0.003)
    own, known = (fit_table(table, law=law, sampling=Sampling(50)) for law in (SATURATING, CHINCHILLA))
    assert own.law.fit.objective_value == pytest.approx(known.law.fit.objective_value, rel=1e-9)
    assert own.law.intervals["k"].value / np.log(10) == pytest.approx(known.law.intervals["beta"].value, rel=1e-6)
    assert own.profiles["alpha"].low == pytest.approx(known.profiles["alpha"].low, rel=1e-2)
    run = {"params": 1e6, "tokens": 1e7}
    assert predict(own, run).low == pytest.approx(predict(known, run).low, rel=1e-6)
    scored = [cut.bias for cut in backtest_of(own, table).cuts if not cut.reason]
    assert scored == pytest.approx([cut.bias for cut in backtest_of(known, table).cuts if not cut.reason], rel=1e-6)
    write_study(tmp_path, table, study_report(table, own))
    saved = json.loads((tmp_path / "law.json").read_text())
    with pytest.raises(LawError, match="law = 'saturating': no law of this package.* Fix: hand the law in"):
        Study.from_dict(saved)
    assert Study.from_dict(saved, laws=[SATURATING]).law.fit == own.law.fit


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_a_law_is_linear_in_the_parameters_without_starts(law):
    assert check_law(law) is law


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_second_derivatives_are_those_of_the_law_far_from_where_it_is_usual(law):
    """Newton's steps and every curvature rest on them, and a power past 1e154 has lost its own without a sign."""
    planted, generator = PLANTED[law.name], np.random.default_rng(0)
    inputs = {name: np.asarray(column) for name, column in planted.inputs(generator, 8).items()}
    usual = np.array([parameter.variable(np.array(planted.truth[parameter.name])) for parameter in law.parameters])
    move = np.eye(len(usual))
    with jax.enable_x64(True):
        weights = generator.normal(size=8)
        gradient = jax.jit(jax.grad(lambda theta: jnp.sum(weights * law.predict_target(theta, inputs))))
        hessian = jax.jit(jax.jacfwd(gradient))
        for theta in (usual, *(usual + step * one for one in move for step in (-4.0, -2.0, 2.0))):
            exact, near = np.asarray(hessian(theta)), []
            for step in (1e-4, 2e-4):  # two steps, and Richardson's extrapolation: what is left is of order step^4
                moved = [(gradient(theta + step * one) - gradient(theta - step * one)) / (2 * step) for one in move]
                near.append(np.stack(moved))
            measured = (4 * near[0] - near[1]) / 3
            assert np.isfinite(exact).all(), theta
            rounding = 1e-10 * np.abs(gradient(theta)).max()  # of the gradient, 1e-15, over the step
            np.testing.assert_allclose(exact, measured, rtol=1e-6, atol=1e-8 * np.abs(measured).max() + rounding)


def _exact_data_constrained(constants, params, tokens, unique_tokens):
    """The law's formula with sixty digits and no limit to the exponent."""
    with decimal.localcontext(prec=60):
        E, A, B, alpha, beta, R_D, R_N, n, d, U_D = map(
            decimal.Decimal, (*constants.values(), params, tokens, unique_tokens)
        )
        scale = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
        U_N = min(n, scale ** (1 + beta / alpha) * U_D ** (beta / alpha))
        n_worth = U_N + U_N * R_N * (1 - ((1 - n / U_N) / R_N).exp())
        d_worth = U_D + U_D * R_D * (1 - ((1 - d / U_D) / R_D).exp())
        return float(E + A / n_worth**alpha + B / d_worth**beta)


@pytest.mark.parametrize(
    "alpha, beta, R_N",
    [
        (0.35, 0.37, 5.0),
        (0.35, 0.37, 1e15),  # no repeat is worth less
        (0.014, 0.25, 3e129),  # the optimal params are 1e-153: where a search of 47 points passed
        (0.001, 0.002, 5.0),  # 1e-3429
        (0.002, 1e-7, 5.0),  # 1e577
    ],
)
def test_the_data_constrained_law_is_its_formula_far_from_the_usual_constants(alpha, beta, R_N):
    law, inputs = find("data_constrained"), {"params": 1e9, "tokens": 1e10, "unique_tokens": 1e9}
    constants = {"E": 2.0, "A": 1.0, "B": 1400.0, "alpha": alpha, "beta": beta, "R_D": 15.0, "R_N": R_N}
    found = evaluate(law, np.array([constants[name] for name in law.names]), inputs)
    np.testing.assert_allclose(found, _exact_data_constrained(constants, **inputs), rtol=1e-12)


def test_a_sharp_break_is_a_corner():
    """At sharpness 1e-4 the law is two straight lines in the logarithms, on both sides of the break."""
    flops = np.array([1e15, 1e19, 1e24])
    constants = {"E": 0.0, "scale": 5.0, "before": 0.05, "change": 0.1, "break_flops": 1e18, "sharpness": 1e-4}
    law = find("broken")
    corner = 5.0 * flops**-0.05 * np.maximum(flops / 1e18, 1.0) ** -0.1
    found = evaluate(law, np.array([constants[name] for name in law.names]), {"flops": flops})
    np.testing.assert_allclose(found, corner, rtol=1e-12)


def test_reading_a_result_runs_no_file_that_it_names(tmp_path):
    (tmp_path / "theirs.py").write_text("raise SystemExit('ran')")
    saved = {**describe(CHINCHILLA), "name": f"{tmp_path / 'theirs.py'}:LAW"}
    for read in (described, lambda data: json_values.from_dict(Law, data)):
        with pytest.raises(LawError, match="no law of this package, and a file loads no code"):
            read(saved)
    with pytest.raises(LawError, match="no such law"):
        find(saved["name"])


def test_a_law_in_a_file_is_told_from_another_of_its_name():
    """A fit keeps the law it was made with, and no file passes it off as the one that comes with the package."""
    law = dataclasses.replace(CHINCHILLA, residual="linear")
    result = fit(law, planted_table(noise=0.0))
    assert result.law.residual == "linear" and profile(result, select(law, planted_table(noise=0.0))[0]).keys() == set(
        law.names
    )
    with pytest.raises(LawError, match="residual of law 'chinchilla': the file has 'linear', and the law of that name"):
        json_values.from_dict(Fit, json_values.to_dict(result))
    with pytest.raises(LawError, match="law = 'chinchilla': must have name, formula, residual and fixed"):
        json_values.from_dict(Fit, {**json_values.to_dict(result), "law": "chinchilla"})


def test_gadre_is_chinchilla_with_tied_exponents_in_other_words():
    """Gadre et al. 2024, section 3.1: eta = alpha / 2, a = A 6^eta, b = B 6^eta under C = 6 N D."""
    inputs = {"params": np.geomspace(1e6, 1e9, 5), "tokens": np.geomspace(3e7, 1e12, 5)}
    tied = evaluate(find("chinchilla_tied"), np.array([1.7, 400.0, 900.0, 0.3]), inputs)
    over = evaluate(find("over_training"), np.array([1.7, 400.0 * 6**0.15, 900.0 * 6**0.15, 0.15]), inputs)
    np.testing.assert_allclose(over, tied, rtol=1e-14)


def test_a_law_is_a_value():
    assert dataclasses.replace(CHINCHILLA) == CHINCHILLA and len({CHINCHILLA, dataclasses.replace(CHINCHILLA)}) == 1
