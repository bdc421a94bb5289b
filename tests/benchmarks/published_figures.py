"""Figures of published papers beside what this project's fits give.

ISOFLOP_SCALING_DATA=<folder> .venv/bin/python tests/benchmarks/published_figures.py
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd
import test_published_chinchilla as chinchilla
import test_published_data_constrained as constrained
import test_published_downstream as downstream
import test_published_experts as experts
import test_published_hyperparameters as hyperparameters

from analysis.datasets import SETTING, load
from analysis.fit import LEAST_SQUARES, fit, select
from analysis.intervals import Estimate, profile
from analysis.laws import find
from analysis.runs_table import complete
from analysis.studies import cells_of, excess_loss, fit_bowls, optima_table
from analysis.studies.hyperparameters import AXES, CELL, nearest_run
from analysis.studies.joint_bowls import fit_joint


def show_chinchilla() -> None:
    print(
        "\nChinchilla table 3 (printed) and the law refitted to the 240 points: params and tokens with 90 % intervals"
    )
    print(f"{'FLOP':>9} {'params':>9} {'refitted':>28} {'tokens':>9} {'refitted':>28}")
    for row, params, tokens in chinchilla.allocations(load("chinchilla_epoch")):
        print(f"{row[1]:9.2e} {row[0]:9.2e} {params!s:>28} {row[2]:9.2e} {tokens!s:>28}")


def show_experts() -> None:
    table = load("routed_moe")
    for family, published in experts.PUBLISHED.items():
        found = experts.fit_family(table, family)
        others = {
            name: fit(experts.ROUTED, rows, LEAST_SQUARES) for name, rows in experts.other_rows(table, family).items()
        }
        print(f"\nRouted models, {family}: published, refitted with 90 % intervals, and refitted to other rows")
        print(f"  {'':8} {'published':>9} {'refitted':>32}" + "".join(f"{name:>16}" for name in others))
        for name, interval in found.intervals.items():
            row = "".join(f"{other.values[name]:16.4g}" for other in others.values())
            print(f"  {name:8} {published[name]:9.4g} {interval!s:>32}{row}")
        constants = {"published": list(published.values()), "refitted": found.fit.array()}
        for name, values in constants.items():
            print(f"  root mean square of log residuals, {name}: {experts.misfit(table, family, values):.4f}")


def show_tasks() -> None:
    table = load("olmo_ladder")
    for held_out in downstream.HELD_OUT:
        print(
            f"\nOLMo ladder, {held_out} held out: relative error of task loss and accuracy, absolute of accuracy, in %"
        )
        for task, errors in downstream.all_tasks(table, held_out).items():
            print(f"  {task:30} {100 * errors.task_loss:6.2f} {100 * errors.accuracy:6.2f} {100 * errors.points:6.2f}")


def show_data_constrained() -> None:
    table = load("datablations")
    found = fit(constrained.LAW, table)
    print("\nData-constrained: objective and R_D*, R_N*, published and refitted; 90 % profile intervals")
    print(f"  published {constrained.huber(table, constrained.PUBLISHED):.8f} {constrained.PUBLISHED}")
    print(f"  refitted  {found.objective_value:.8f} {found.values}")
    for name, curve in profile(found, select(found.law, table)[0]).items():
        print(f"  {name}: {curve.low:.4g} to {curve.high:.4g}{'' if curve.closed_above else ' and beyond'}")


def show_hyperparameters() -> None:
    table = load("steplaw_dense")
    print("\nStep Law: exponents with 90 % intervals and mean excess loss, by how a cell's optimum is placed")
    for bandwidth in (0.8, 1.0, 1.25, 1.5):
        rate, batch = hyperparameters.laws_of(optima_table(fit_bowls(table, bandwidth=bandwidth)))
        _show_step_law(f"bandwidth {bandwidth}", rate, batch, table)
    best = pd.DataFrame({"run": [bowl.best_run for bowl in fit_bowls(table)]}).merge(table, on="run")
    _show_step_law("the best run", *hyperparameters.laws_of(best), table)
    print(f"  published: {100 * excess_loss(table, hyperparameters.PUBLISHED)['excess'].mean():.4f} %")
    print("  the laws through all bowls, in cells that were left out, by bandwidth:")
    for bandwidth in (0.8, 1.0, 1.25, 1.5, 2.0):
        print(f"  {bandwidth}: {100 * _left_out_excess(table, bandwidth):.4f} %")


def _left_out_excess(table: pd.DataFrame, bandwidth: float) -> float:
    """Mean excess loss of the joint laws in cells that they were not fitted to."""
    groups, bowls = [group for _, group in cells_of(table, CELL)], fit_bowls(table)
    laws = {axis: find(f"{axis}_params_tokens") for axis in AXES}
    joint = fit_joint(groups, bowls, complete(optima_table(bowls)), laws, bandwidth=bandwidth)
    excess = [
        nearest_run(group, {axis: float(law.followed(bowl.cell)[1 + i]) for axis, law in joint.laws.items()})[1]
        for i, (group, bowl) in enumerate(zip(groups, bowls, strict=True))
    ]
    return float(np.mean(excess))


def _show_step_law(name: str, rate: Estimate, batch: Estimate, table: pd.DataFrame) -> None:
    excess = excess_loss(table, hyperparameters.recommendation(rate, batch))["excess"].mean()
    exponents = [
        rate.intervals["params_exponent"],
        rate.intervals["tokens_exponent"],
        batch.intervals["tokens_exponent"],
    ]
    print(f"  {name:14} {'  '.join(map(str, exponents))}  {100 * excess:.4f} %")


def main() -> None:
    if not os.environ.get(SETTING):
        print(f"SKIPPED: {SETTING} is not set; analysis/datasets/sources.py says where to get the tables")
        return
    show_chinchilla()
    show_data_constrained()
    show_hyperparameters()
    show_experts()
    show_tasks()


if __name__ == "__main__":
    main()
