"""Laws against compute: what a run costs, where the valleys of equal compute lie, and the frontier that follows.

`flops` has the rules by which FLOPs follow from params and tokens, `valleys`, `readings` and `isoflop` find the minima
of equal budgets (approach 2), `design` says what a grid of sizes and budgets can tell, `frontier` computes optima of a
fitted law, `serving` adds the cost of inference.
"""

from analysis.compute.design import Design, Support, simulate
from analysis.compute.flops import SIX_ND, FlopRule, fit_flop_rule, flop_rule
from analysis.compute.frontier import Reach, efficient_runs, tokens_for_loss
from analysis.compute.isoflop import AUTO_VALLEYS, IsoFlop, ValleySettings, fit_isoflop
from analysis.compute.serving import cheapest_runs
from analysis.compute.surface import Surface, fit_surface
