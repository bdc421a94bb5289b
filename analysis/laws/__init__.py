"""Scaling laws as short definitions. Fitter, intervals, figures and command line work for any of them."""

import difflib

from analysis.laws import data_constrained, downstream, experts, hyperparameters, learning_curve, loss
from analysis.laws.definition import Law, LawError, Parameter, evaluate, power
from analysis.laws.loss import CHINCHILLA, FRONTIER, LOSS_FRONTIER

MODULES = (loss, data_constrained, experts, downstream, hyperparameters, learning_curve)
LAWS = {law.name: law for module in MODULES for law in module.LAWS}


def find(name: str) -> Law:
    """The law of that name. Raises LawError naming the nearest ones."""
    if name not in LAWS:
        near = difflib.get_close_matches(name, LAWS, n=3, cutoff=0.3) or list(LAWS)
        raise LawError(f"law = {name!r}: no such law. Fix: use one of {', '.join(near)}.")
    return LAWS[name]


__all__ = [
    "CHINCHILLA",
    "FRONTIER",
    "LAWS",
    "LOSS_FRONTIER",
    "Law",
    "LawError",
    "Parameter",
    "evaluate",
    "find",
    "power",
]
