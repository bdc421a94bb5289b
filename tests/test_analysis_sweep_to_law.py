"""A law whose output is no loss, from the optima of a sweep: what is said of it, in which units, with which figures."""

import re

import pandas as pd
import pytest
import tyro
from planted_tables import best_rate, planted_sweep, planted_table

from analysis.command.fit import fit
from analysis.command.predict import predict
from analysis.command.score import score
from analysis.fit import FitError
from analysis.quantities import is_loss
from analysis.runs_table import unit_of
from analysis.studies import fit_bowls, optima_table

FEW = ("--bootstraps", "30")


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    path = tmp_path_factory.mktemp("optima") / "best.csv"
    optima_table(fit_bowls(planted_sweep())).to_csv(path, index=False)
    return path


def run(verb, *arguments):
    tyro.cli(verb, args=[str(argument) for argument in arguments])


def test_laws_of_optima_are_fitted_and_have_no_optima_of_their_own(best, tmp_path, capsys):
    assert (pd.read_csv(best)["batch_tokens"] % 1 != 0).any()
    for law, exponent in (("learning_rate_params_tokens", "-0.(4|39|40)"), ("batch_tokens_tokens", "0.(5|49|50)")):
        run(fit, best, "--law", law, *FEW, "--figures", tmp_path / law)
        shown = capsys.readouterr().out
        assert re.search(rf"_exponent +{exponent}", shown)
        report = (tmp_path / law / "report.md").read_text()
        for text in (shown, report):
            assert not re.search(r"[Cc]ompute-optimal|nats|approach|valleys|loss", text.replace("learning_rate", ""))
        figures = {path.stem for path in (tmp_path / law / "figures").iterdir()}
        assert "prediction_against_measurement" in figures and not {"loss_surface", "isoflop_valleys"} & figures
    for asked in (("--budgets", "1e21"), ("--target-loss", "2", "--inference-tokens", "1e12")):
        with pytest.raises(FitError, match="its output learning_rate is no loss to be made least"):
            run(fit, best, "--law", "learning_rate_params_tokens", *FEW, *asked)
    with pytest.raises(FitError, match="its output learning_rate is no loss"):
        run(predict, best, "--law", "learning_rate_params_tokens", *FEW, "--flops", 1e21, "--out", tmp_path / "p.json")


def test_the_optima_are_read_at_compute_optimal_runs(best, tmp_path, capsys):
    planted_table().to_csv(tmp_path / "runs.csv", index=False)
    run(fit, tmp_path / "runs.csv", *FEW, "--hyperparameters", f"batch_tokens_tokens={best}")
    shown = capsys.readouterr().out
    assert "(batch_tokens) are read at the optimum of the approach that heads their column" in " ".join(shown.split())
    rows = [line.split() for line in shown.splitlines() if "batch_tokens (tokens)" in line]
    assert len(rows) == 3 and all(float(by_2) != float(by_3) for *_, by_2, by_3 in rows)


def test_a_small_number_keeps_its_digits(best, tmp_path, capsys):
    out = tmp_path / "p.json"
    run(predict, best, "--law", "learning_rate_params_tokens", *FEW, "--at", "params=1e9", "tokens=1e12", "--out", out)
    run(score, out, "--measured", 1.9e-05)
    shown = capsys.readouterr().out
    found = re.findall(r"predicted (?:learning_rate)? *([\d.e-]+)", shown)
    assert len(found) == 2 and found[0] == found[1] == f"{float(found[0]):.5g}"
    assert float(found[0]) == pytest.approx(best_rate(1e9, 1e12), rel=0.01)
    assert "measured 1.9e-05" in shown and "extrapolates 12.5 times" in shown
    assert not re.search(r"\b0\.0000\b", shown)


def test_what_is_a_loss():
    assert all(
        map(is_loss, ("loss_nats", "loss_nats_code", "task_loss", "task_loss_quiz", "bits_per_byte", "val_loss"))
    )
    assert not any(map(is_loss, ("learning_rate", "batch_tokens", "accuracy", "accuracy_quiz", "flops", "score")))
    assert unit_of("learning_rate") == "" and unit_of("loss_nats") == "nats per token"
