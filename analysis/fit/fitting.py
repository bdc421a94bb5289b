"""Fit any law of `laws`, or of a user's own, to a runs table.

The objective is a sum over points, in float64, as in Hoffmann et al. 2022, section 3.3.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fit.batched import target_jacobian
from analysis.fit.objectives import HUBER, HUBER_LIKELIHOOD, LEAST_SQUARES, OBJECTIVES, Objective
from analysis.fit.points import FitError, LeftOut, Points, select, those_left_out
from analysis.fit.search import search
from analysis.fit.starts import off_bounds
from analysis.laws import LAWS, Law, evaluate
from analysis.runs_table import complete
from analysis.tables.runs import rows_or_runs


@dataclass(frozen=True)
class Fit:
    """A law fitted to points.

    law: the law, with what was held held (`Law.fix`). values: the fitted constants. objective_value: the minimised sum,
    not a mean. scale: the fitted scale of the residuals where the objective has one, else None. gradient_norm: largest
    derivative of the objective by a fitted variable (logarithm of a positive parameter). starts_at_optimum: starts that
    ended within 1e-6 relative of the best value. condition_number: ratio of the largest to the smallest singular value
    of d residual / d variable, without the variables that have no effect where they are, such as constants at their
    bound. residual_scale: standard deviation of the residuals (of log loss, for most laws), with (points - parameters)
    degrees of freedom. ranges: smallest and largest value fitted of each of the law's inputs and of its output.
    """

    law: Law
    objective: Objective
    values: dict[str, float]
    objective_value: float
    scale: float | None
    starts: int
    starts_at_optimum: int
    gradient_norm: float
    condition_number: float
    residual_scale: float
    ranges: dict[str, tuple[float, float]]
    used: tuple[str, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def counted(self) -> str:
        """What `used` counts: rows where a run has several, else runs."""
        return rows_or_runs(len(self.used), len(set(self.used)))

    def array(self) -> np.ndarray:
        """The fitted constants (parameters,), in the law's order."""
        return np.array([self.values[name] for name in self.law.names])


def fit(law: Law, table: pd.DataFrame, objective: Objective = HUBER) -> Fit:
    """Fit `law` to the usable rows of any `table` from many starting points; the lowest minimum is returned.

    Raises FitError when fewer points than parameters + 1 are usable, when an input is constant and its effect cannot be
    told from a constant, or when several inputs are powers of one another.
    """
    return fit_points(law, *select(law, complete(table)), objective)


def fit_points(law: Law, points: Points, left_out: tuple[LeftOut, ...], objective: Objective = HUBER) -> Fit:
    """`fit` for points that are already selected."""
    check_identifiable(law, points, left_out)
    found, starts, at_optimum = search(law, points, objective)
    best = int(np.nanargmin(found.value))
    target = law.target(points.output)
    values = law.natural(found.theta[best])
    residuals = target - law.target(evaluate(law, values, points.inputs))
    residual_scale = float(np.sqrt(np.sum(residuals**2) / (len(residuals) - len(values))))
    jacobian = target_jacobian(law, found.theta[best], points.inputs)
    felt = off_bounds(law, found.theta[best], points.inputs, residual_scale) == found.theta[best]
    singular = np.linalg.svd(jacobian[:, felt] if felt.any() else jacobian, compute_uv=False)
    return Fit(
        law=law,
        objective=objective,
        values=dict(zip(law.names, map(float, values), strict=True)),
        objective_value=float(found.value[best]),
        scale=None if found.scale is None else float(found.scale[best]),
        starts=starts,
        starts_at_optimum=at_optimum,
        gradient_norm=float(np.max(np.abs(found.gradient[best]))),
        condition_number=float(singular[0] / max(singular[-1], 1e-300)),
        residual_scale=residual_scale,
        ranges={
            name: (float(x.min()), float(x.max())) for name, x in {**points.inputs, law.output: points.output}.items()
        },
        used=points.runs,
        left_out=left_out,
    )


def _without(law: Law, constant: str) -> str:
    """Other ways to fit runs of which one input is constant: laws of the other inputs, or the constants held."""
    others = {name for name in law.inputs if name != constant}
    laws = [other.name for other in LAWS.values() if set(other.inputs) == others and other.output == law.output]
    return f"{f', fit --law {laws[0]}' if laws else ''}, or hold the constants that go with it, as --fix CONSTANT=VALUE"


def check_identifiable(law: Law, points: Points, left_out: tuple[LeftOut, ...]) -> None:
    """Raise FitError for points that cannot determine the law."""
    needed = len(law.parameters) + 1
    if len(points.runs) < needed:
        raise FitError(
            f"points = {len(points.runs)}: law {law.name!r} has {len(law.parameters)} parameters and needs "
            f"at least {needed} usable points. Fix: add runs{those_left_out(left_out, len(points.runs))}."
        )
    if law.fixed:
        return  # what varies is then not for the inputs alone to say: conditioning tells
    if np.ptp(points.output) == 0:
        raise FitError(
            f"{law.output} = {points.output[0]:g} in all {len(points.runs)} usable points: there is nothing that "
            f"{' and '.join(law.inputs)} could explain. Fix: map the column that was measured, as --column "
            f"{law.output}=YOURS."
        )
    logs = np.stack([np.log1p(x) if name in law.may_be_zero else np.log(x) for name, x in points.inputs.items()])
    spread = np.ptp(logs, axis=1)
    for name, width in zip(law.inputs, spread, strict=True):
        if width < 1e-6:
            raise FitError(
                f"{name} = {points.inputs[name][0]:g} in all {len(points.runs)} usable points: the effect of {name} "
                f"cannot be told from a constant. Fix: add runs that differ in {name}{_without(law, name)}"
                f"{those_left_out(left_out, len(points.runs))}."
            )
    centred = (logs - logs.mean(axis=1, keepdims=True)) / spread[:, None]
    singular = np.linalg.svd(centred, compute_uv=False)
    if singular[-1] < 1e-3 * singular[0]:
        raise FitError(
            f"{' and '.join(law.inputs)}: all {len(points.runs)} usable points lie on one line in their "
            "logarithms (one compute budget only, or a fixed ratio), so their effects cannot be told apart. "
            f"Fix: add runs at other budgets{those_left_out(left_out, len(points.runs))}."
        )


__all__ = [
    "HUBER",
    "HUBER_LIKELIHOOD",
    "LEAST_SQUARES",
    "OBJECTIVES",
    "Fit",
    "FitError",
    "LeftOut",
    "Objective",
    "Points",
    "fit",
    "fit_points",
    "select",
]
