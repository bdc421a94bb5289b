"""Figures of published papers beside what fits give here: Chinchilla's table 3, routed models, tasks.

ISOFLOP_SCALING_DATA=<folder> .venv/bin/python tests/benchmarks/published_figures.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import test_published_chinchilla as chinchilla
import test_published_downstream as downstream
import test_published_experts as experts

from analysis.datasets import load
from analysis.fitting import LEAST_SQUARES, fit


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


if __name__ == "__main__":
    show_chinchilla()
    show_experts()
    show_tasks()
