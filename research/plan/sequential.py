"""Points of a search proposed one round after another, by Optuna's sampler from the losses of those before."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from research.config import ConfigError
from research.plan.axis import Axis, Value, rounded
from research.plan.rounds import Point, Tried

if TYPE_CHECKING:
    import optuna

REPEATS = 50  # proposals in a row that are no new point, after which there is none


class Sequential:
    """Asks Optuna's tree-structured Parzen estimator (Bergstra 2011, with all axes in one density) for new points.

    It knows the points in the order in which they were tried and nothing else, so that the same losses give the same
    proposals, of one version of Optuna. Raises ConfigError where Optuna is not installed.
    """

    def __init__(self, axes: Sequence[Axis], most: int, per_round: int, seed: int):
        optuna = _imported()
        self._axes, self._most, self._per_round = axes, most, per_round
        self._given_up = optuna.trial.TrialState.FAIL
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
        self._study = optuna.create_study(sampler=sampler)
        self._told: set[Point] = set()
        self._asked: dict[Point, Any] = {}

    def __call__(self, tried: Tried) -> list[Point]:
        """The points of the next round, none once `most` were tried or where no new one is found."""
        for point, loss in tried.items():
            if point not in self._told:
                self._study.tell(self._asked.pop(point), loss)
                self._told.add(point)
        found: list[Point] = []
        repeats = 0
        while len(found) < min(self._per_round, self._most - len(tried)) and repeats < REPEATS:
            trial = self._study.ask()
            point = tuple(_suggested(trial, axis) for axis in self._axes)
            if point in tried:
                self._study.tell(trial, tried[point])
            elif point in self._asked:
                self._study.tell(trial, state=self._given_up)
            else:
                self._asked[point] = trial
                found.append(point)
            repeats = 0 if found[-1:] == [point] else repeats + 1
        return found


def _imported() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ConfigError(
            "method = 'optuna': needs Optuna, which is not installed. Fix: pip install 'isoflop[search]', or write "
            'method="sobol".'
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else a line for each study and trial
    return optuna


def _suggested(trial: "optuna.Trial", axis: Axis) -> Value:
    """A value of the axis; a scale with a number of values is asked for by their place, evenly spaced as they are."""
    if axis.scale == "choices":
        return trial.suggest_categorical(axis.field, axis.choices)
    if axis.every is not None:
        return axis.every[trial.suggest_int(axis.field, 0, len(axis.every) - 1)]
    value = trial.suggest_float(axis.field, axis.low, axis.high, log=axis.scale == "log")
    return min(max(rounded(value), axis.low), axis.high)
