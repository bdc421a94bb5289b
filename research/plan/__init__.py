"""Experiments as values: what is trained, and what it costs in closed form, before anything is.

An experiment file's EXPERIMENT is one of these dataclasses (IsoFlop, Grid, Search, Branches, Runs). A new kind of plan
is one more file with a frozen dataclass that has what `experiment.Experiment` names; parameters and FLOPs are counted
in `cost` alone.
"""

from research.plan.axis import Axis
from research.plan.branches import Branches
from research.plan.cost import decode_state_bytes, executed_cost, model_cost, run_cost, train_state_bytes, update_flops
from research.plan.experiment import Experiment, Losses
from research.plan.experiment_file import load, select
from research.plan.grid import Family, Grid
from research.plan.isoflop import IsoFlop
from research.plan.listed import Runs
from research.plan.recipe import Recipe, fitted_recipe
from research.plan.scaling import scaled
from research.plan.search import Search
