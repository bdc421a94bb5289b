"""Laws against compute: what a run costs, where the valleys of equal compute lie, and the frontier that follows.

`flops` has the rules by which FLOPs follow from params and tokens, `isoflop` and `interpolation` read valleys from
runs, `frontier` computes optima of a fitted law, `serving` adds the cost of inference.
"""

from analysis.compute.flops import SIX_ND, FlopRule, fit_flop_rule, flop_rule
from analysis.compute.frontier import Reach, efficient_runs, tokens_for_loss
from analysis.compute.interpolation import fit_interpolated
from analysis.compute.isoflop import IsoFlop, fit_isoflop
from analysis.compute.serving import cheapest_runs
