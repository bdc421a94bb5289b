"""The tables that `isoflop plan` and `isoflop status` print."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from research.command.progress import STATUS_STYLES, duration, short_count
from research.config import RunConfig, run_label, short_number
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


def plan_table(configs: Sequence[RunConfig], title: str, held_out_flops: float | None) -> Table:
    """One line a run, a gap between families and budgets, the total cost below."""
    table = _table(title)
    families = {config.family for config in configs}
    if len(families) > 1:
        table.add_column("family", no_wrap=True)
    for name in PLAN_COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for (family, _), alike in groupby(configs, key=lambda config: (config.family, config.budget_flops)):
        for config in alike:
            table.add_row(*([family] if len(families) > 1 else []), *_plan_row(config))
        table.add_section()
    total = sum(run_cost(config).flops for config in configs) + (held_out_flops or 0.0)
    table.caption = f"{len(configs)} runs"
    if held_out_flops is not None:
        table.add_row(short_number(held_out_flops), *["-"] * 6, short_number(held_out_flops), style="cyan")
        table.caption += " and, last line, a held-out one: after the fit, at the size the fit calls best"
    table.caption += f"\n{short_number(total)} training FLOPs in all"
    return table


def _plan_row(config: RunConfig) -> list[str]:
    cost = run_cost(config)
    return [
        "-" if config.budget_flops is None else short_number(config.budget_flops),
        f"{config.model.width} x {config.model.depth}",
        short_count(cost.params),
        short_count(cost.tokens),
        f"{cost.tokens / cost.params:.3g}",
        f"{config.training.steps:,}",
        f"{config.optimizer.learning_rate:.3g}",
        short_number(cost.flops),
    ]


def status_table(configs: Iterable[RunConfig], runs_dir: Path) -> Table:
    """One line a run: what its files say."""
    table = _table()
    for name in ("run", "status"):
        table.add_column(name, no_wrap=True)
    for name in ("step", "loss\nnats/token", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    statuses = []
    for config in configs:
        folder = folder_of(runs_dir, config)
        status, result = folder.status(), folder.result()
        statuses.append(status)
        step, training_loss = folder.last_step()
        loss = result.get("loss_nats", training_loss)
        seconds = result.get("wall_seconds")
        remark = result.get("failure_reason", "held out" if config.held_out else "")
        table.add_row(
            run_label(config),
            Text(status, style=STATUS_STYLES[status]),
            f"{step:,}/{config.training.steps:,}",
            "" if loss is None else f"{loss:.4f}",
            "" if seconds is None else duration(seconds),
            Text(remark, style="dim"),
        )
    table.caption = f"{statuses.count(Status.DONE)} of {len(statuses)} runs done"
    return table


def _table(title: str | None = None) -> Table:
    return Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
    )
