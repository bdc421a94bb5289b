"""What runs are called: a label for people, and a name that no other run has."""

import re

from research.config.identity import fingerprint
from research.config.run import RunConfig


def run_label(config: RunConfig) -> str:
    """What to call a run where there is little room; two runs may share it: transformer-1.2e11-w64-d4-seed0."""
    family = re.sub(r"[^A-Za-z0-9_.]+", "_", config.family)
    budget = [] if config.budget_flops is None else [short_number(config.budget_flops)]
    return "-".join(
        [family, *budget, f"w{config.model.width}", f"d{config.model.depth}", f"seed{config.training.seed}"]
    )


def run_name(config: RunConfig) -> str:
    """The label made unique by the fingerprint: transformer-1.2e11-w64-d4-seed0-4039cfb9f0bc."""
    return f"{run_label(config)}-{fingerprint(config)}"


def short_number(value: float) -> str:
    """Three significant digits without the exponent's sign and zeros: 1.2e11, 3e9, 512."""
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa
