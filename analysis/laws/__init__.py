"""Scaling laws as short definitions. Fitter, intervals, figures and command line work for any of them."""

from analysis.laws.definition import Law, LawError, Parameter, evaluate, power
from analysis.laws.joint import joint
from analysis.laws.loss import CHINCHILLA, FRONTIER, LOSS_FRONTIER
from analysis.laws.names import LAWS, describe, described, find, load

__all__ = [
    "CHINCHILLA",
    "FRONTIER",
    "LAWS",
    "LOSS_FRONTIER",
    "Law",
    "LawError",
    "Parameter",
    "describe",
    "described",
    "evaluate",
    "find",
    "joint",
    "load",
    "power",
]
