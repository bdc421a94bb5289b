"""The tables that `isoflop plan` and `isoflop status` print."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from research.command.progress import STATUS_STYLES, duration, short_count
from research.command.text_table import Column, TextTable
from research.config import RunConfig, distinct_labels, short_number, short_values, value_at, varying_fields
from research.plan import run_cost
from research.runs import Status, folder_of

PLAN_COLUMNS = (
    "budget\nFLOPs",
    "width x\ndepth",
    "params",
    "tokens",
    "tokens\n/param",
    "steps",
    "learning\nrate",
    "cost\nFLOPs",
)


def plan_table(
    configs: Sequence[RunConfig], title: str, held_out_flops: float | None, searched: Sequence[str] = ()
) -> TextTable:
    """One line per run, a gap between families and budgets, the total cost below.

    searched: dotted fields that get a column of their own. Where runs would look the same even so, one is added for
    each field in which they differ.
    """
    shown = [_plan_row(config) for config in configs]
    further = [name for name in searched if name != "optimizer.learning_rate"]  # which has its column anyway
    told = [(*row, *(value_at(config, name) for name in further)) for config, row in zip(configs, shown)]
    extra = [*further, *_fields_that_tell_apart(configs, told)]
    families = {config.family for config in configs}
    columns = [Column("family", is_number=False)] * (len(families) > 1)
    columns += [Column(name) for name in (*PLAN_COLUMNS, *(name.rpartition(".")[2] for name in extra))]
    values = ([value_at(config, name) for config in configs] for name in extra)
    extra_cells = list(zip(*map(short_values, values))) or [()] * len(configs)
    rows: list[tuple[str, ...] | None] = []
    lines = zip(configs, shown, extra_cells)
    for _, alike in groupby(lines, key=lambda line: (line[0].family, line[0].budget_flops)):
        if rows:
            rows.append(None)
        for config, row, more in alike:
            rows.append((*([config.family] if len(families) > 1 else []), *row, *more))
    total = sum(run_cost(config).flops_per_step * config.own_steps for config in configs) + (held_out_flops or 0.0)
    caption = f"{len(configs)} run{'s' if len(configs) != 1 else ''}"
    if held_out_flops is not None:
        held_out = [short_number(held_out_flops), *["-"] * 6, short_number(held_out_flops), *["-"] * len(extra)]
        cells = [*["-"] * (len(families) > 1), *held_out]
        rows += [None, tuple((cell, "cyan") for cell in cells)]
        caption += " and, last line, a held-out one: after the fit, at the size the fit calls best"
    caption += f"\n{short_number(total)} training FLOPs in all"
    return TextTable(tuple(columns), tuple(rows), title, caption)


def _plan_row(config: RunConfig) -> tuple[str, ...]:
    cost = run_cost(config)
    return (
        "-" if config.budget_flops is None else short_number(config.budget_flops),
        f"{config.model.width} x {config.model.depth}",
        short_count(cost.params),
        short_count(cost.tokens),
        f"{cost.tokens / cost.params:.3g}",
        f"{config.training.steps:,}",
        f"{config.optimizer.learning_rate:.3g}",
        short_number(cost.flops),
    )


def _fields_that_tell_apart(configs: Sequence[RunConfig], rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """The dotted fields in which runs differ whose rows are the same."""
    alike = defaultdict(list)
    for config, row in zip(configs, rows):
        alike[config.family, row].append(config)
    return list(dict.fromkeys(name for group in alike.values() for name, _ in varying_fields(group)))


def status_table(configs: Sequence[RunConfig], runs_dir: Path) -> TextTable:
    """One line per run: what its files say."""
    columns = (
        Column("run", is_number=False, may_be_cut=True),
        Column("status", is_number=False),
        Column("step"),
        Column("loss\nnats/token"),
        Column("time"),
        Column("", is_number=False, may_be_cut=True),
    )
    rows, done = [], 0
    for config, label in zip(configs, distinct_labels(configs)):
        folder = folder_of(runs_dir, config)
        status, outcome = folder.outcome()
        done += status == Status.DONE
        step, training_loss = config.training.steps, None
        if status != Status.DONE:  # else there is no need to read its metrics
            step, training_loss = (0, None) if status == Status.PENDING else folder.last_step()
        loss = outcome.get("loss_nats", training_loss)
        seconds = outcome.get("wall_seconds")
        remark = outcome.get("failure_reason", "held out" if config.held_out else "")
        rows.append(
            (
                label,
                (status, STATUS_STYLES[status]),
                f"{step:,}/{config.training.steps:,}",
                "" if loss is None else f"{loss:.4f}",
                "" if seconds is None else duration(seconds),
                (" ".join(remark.split()), "dim"),
            )
        )
    return TextTable(columns, tuple(rows), caption=f"{done} of {len(rows)} runs done")
