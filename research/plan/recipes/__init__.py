"""Recipes by name: how a run's settings follow from its scale, one file each.

A new recipe is a file with a `Rule` and a line in RULES. `research.plan.recipe` makes one a value that a plan holds.
"""

from research.plan.recipes.base import BASE
from research.plan.recipes.deepseek import DEEPSEEK
from research.plan.recipes.definition import Rule, Scale, Setting, Settings
from research.plan.recipes.fitted import FITTED, FittedLaws
from research.plan.recipes.fixed_warmup import FIXED_WARMUP
from research.plan.recipes.kaplan import KAPLAN
from research.plan.recipes.mup_transfer import MUP_TRANSFER
from research.plan.recipes.porian import PORIAN
from research.plan.recipes.step_law import STEP_LAW
from research.plan.recipes.width_power import WIDTH_POWER

RULES: dict[str, Rule] = {
    "base": BASE,
    "fixed_warmup": FIXED_WARMUP,
    "width_power": WIDTH_POWER,
    "mup_transfer": MUP_TRANSFER,
    "kaplan": KAPLAN,
    "deepseek": DEEPSEEK,
    "porian": PORIAN,
    "step_law": STEP_LAW,
    "fitted": FITTED,
}
