"""What a plan could tell, printed by `isoflop plan --prior LAW`."""

from collections.abc import Sequence

import pandas as pd
from rich.console import Console

from analysis import backend
from analysis.report import planned_design_section, show
from analysis.studies import judge, prior_of
from research.config import RunConfig, check
from research.plan import run_cost


def show_judgement(
    configs: Sequence[RunConfig], held_out_flops: float | None, prior: str, noise_nats: float | None, console: Console
) -> None:
    """Simulate the plan on the prior law, and print what it could tell. Raises ConfigError for several families."""
    families = sorted({config.family for config in configs})
    check(
        len(families) == 1, "--prior", prior, f"one law describes one family, not {', '.join(families)}", "use --only"
    )
    costs = [run_cost(config) for config in configs]
    rows = pd.DataFrame(
        {
            "budget_flops": [config.budget_flops for config in configs],
            "params": [cost.params for cost in costs],
            "tokens": [cost.tokens for cost in costs],
            "flops": [cost.flops for cost in costs],
        },
        dtype="float64",
    )
    backend.configure_command()
    show(console, planned_design_section(judge(rows, prior_of(prior, rows, noise_nats), held_out_flops)))
