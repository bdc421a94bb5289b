"""How far a run that was not made lies from those that were fitted."""

from collections.abc import Mapping

from analysis.compute import Reach
from analysis.studies.study import Study


def reach(study: Study, inputs: Mapping[str, float]) -> Reach:
    """How far a run with these inputs lies from the fitted ones.

    In compute where the study has FLOPs, unless one of the law's own inputs lies further out of its fitted range.
    """
    compute = None
    if study.flop_rule is not None and {"params", "tokens"} <= set(inputs):
        compute = float(study.flop_rule.flops(inputs["params"], inputs["tokens"])) / study.largest_flops
    elif "flops" in inputs:
        compute = float(inputs["flops"]) / study.largest_flops
    outside = furthest_outside(inputs, study.ranges, study.far_factor)
    if compute is not None and outside.factor <= max(compute, 1.0):
        return Reach(compute, "compute", study.far_factor)
    return outside


def furthest_outside(
    inputs: Mapping[str, float], ranges: Mapping[str, tuple[float, float]], far_factor: float
) -> Reach:
    """Which input lies furthest out of its fitted range, and how many times beyond its nearer end; 1 inside."""
    factors = {name: _times_outside(float(value), *ranges[name]) for name, value in inputs.items()}
    furthest = max(factors, key=factors.__getitem__)
    return Reach(factors[furthest], furthest, far_factor)


def _times_outside(value: float, low: float, high: float) -> float:
    if value > high:
        return value / high if high > 0 else float("inf")
    return low / value if 0 < value < low else 1.0
