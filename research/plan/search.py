"""A search for the best settings at several scales: points on the axes of a few fields, in every cell."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

from research.config import RunConfig, check, check_choice, fingerprint, not_identity, override, replaced, value_at
from research.plan.axis import Axis, Value, product
from research.plan.cost import model_cost
from research.plan.experiment import Losses
from research.plan.points import drawn
from research.plan.rounds import Outwards, Point, Propose, Tried, extension, extension_remark, wanted
from research.plan.scaling import scaled, with_seed
from research.plan.sequential import Sequential

Method = Literal["grid", "random", "sobol", "halton", "optuna"]
NO_AXES = {  # fields that something else sets, and what
    "experiment": "name",
    "budget_flops": "budgets, or tokens",
    "held_out": "nothing: all runs are fitted",
    "family": "base; a plan searches one family",
    "optimizer.name": "base; a plan searches the settings of one optimizer",
    "model.width": "sizes",
    "model.depth": "sizes",
    "training.steps": "the tokens of a cell",
    "training.sequence_length": "base: losses on other lengths do not compare",
    "training.seed": "seeds",
}


@dataclass(frozen=True)
class Cell:
    """What is equal in all runs of a cell: the base at a size, and the tokens it sees."""

    base: RunConfig
    tokens: float


@dataclass(frozen=True)
class Search:
    """The same fields searched in each cell: every size at every budget, or number of tokens.

    axes: what is searched, and where. A batch is searched at equal tokens, the steps follow. method: "grid", which has
    every combination; "random", "sobol" and "halton", which have the same `points` in each cell; "optuna", which
    proposes `points` in each cell one round of `per_round` after another. points_seed: of those three, and of Optuna.

    sizes: (width, depth); empty: the base's. budgets: training FLOPs (research/plan/cost.py), or tokens in their place;
    both empty: the base's tokens. The tokens of a cell are whole steps of the largest batch of its axis, so that powers
    of two have exactly the same, others up to half a step.

    extend: further values at most at each end of an axis at which the best of a cell lies, by its mean over seeds; one
    a round, a step of the sweep outwards, the other axes at their best. 0: there the best is only marked.
    """

    name: str
    question: str = not_identity()
    base: RunConfig
    axes: tuple[Axis, ...]
    method: Method = "sobol"
    points: int | None = None  # in each cell; a grid says it itself
    per_round: int = 4
    points_seed: int = 0
    sizes: tuple[tuple[int, int], ...] = ()
    budgets: tuple[float, ...] = ()
    tokens: tuple[float, ...] = ()
    seeds: tuple[int, ...] = (0,)
    extend: int = 0
    min_steps: int = 20  # fewer optimizer steps than this say nothing about a setting

    held_out_flops = None
    law = None

    def __post_init__(self):
        check_choice("method", self.method, ("grid", "random", "sobol", "halton", "optuna"))
        self._check_counts()
        fields = [axis.field for axis in self.axes]
        check(len(set(fields)) == len(fields) > 0, "axes", fields, "must be some, of different fields", "drop repeats")
        for axis in self.axes:
            self._check_axis(axis)

    def _check_counts(self) -> None:
        if self.method == "grid":
            check(
                self.points is None, "points", self.points, "must be none: the axes of a grid say how many", "drop it"
            )
        else:
            rule = f"must be at least 2 for method {self.method!r}"
            check(self.points is not None and self.points >= 2, "points", self.points, rule, "write points=16")
        for name, least in (("per_round", 1), ("points_seed", 0), ("extend", 0), ("min_steps", 1)):
            value = getattr(self, name)
            check(value >= least, name, value, f"must be at least {least}", "raise it")
        check(len(self.seeds) > 0, "seeds", self.seeds, "must not be empty", "give at least one")
        check(
            not (self.budgets and self.tokens),
            "tokens",
            self.tokens,
            "stand beside budgets, which say them already",
            "keep one of the two",
        )
        for name in ("budgets", "tokens"):
            value = getattr(self, name)
            check(all(one > 0 for one in value), name, value, "must be above zero", "drop what is not")

    def _check_axis(self, axis: Axis) -> None:
        """Raise ConfigError unless the field is one of a run's that may be searched, and takes the axis' ends."""
        set_by = NO_AXES.get(axis.field)
        check(set_by is None, "axes", axis.field, f"cannot be searched, since it is set by {set_by}", "drop the axis")
        runs = [self._overridden(axis, value) for value in axis.choices or axis.ends]
        check(
            len({fingerprint(run) for run in runs}) == len(runs),
            "axes",
            axis.field,
            "decides no number of these runs",
            "drop the axis",
        )
        whole = isinstance(value_at(self.base, axis.field), int)
        check(
            axis.every is not None or not whole,
            "axes",
            axis.field,
            f"takes whole numbers, which scale {axis.scale!r} does not keep to",
            'write scale="integer" or "power_of_two"',
        )

    def _overridden(self, axis: Axis, value: Value) -> RunConfig:
        short = replace(self.base, training=replace(self.base.training, steps=1))  # its steps follow from the batch
        return override(short, [f"{axis.field}={value}"])

    @property
    def searched(self) -> tuple[str, ...]:
        """The fields of the axes."""
        return tuple(axis.field for axis in self.axes)

    def runs(self) -> tuple[RunConfig, ...]:
        """The first round by cell, point, seed: all but those that Optuna proposes later, or that lie beyond an end.

        Raises ConfigError for a cell of too few tokens, and where what may be proposed later could not be trained.
        """
        if self.method == "optuna":
            for cell, *point in itertools.product(self._cells, *((axis.at(0), axis.at(1)) for axis in self.axes)):
                self._runs_of(cell, tuple(point))
        return self.following({})

    def following(self, losses: Losses) -> tuple[RunConfig, ...]:
        """By cell, point, seed: what Optuna proposes next, then what lies beyond an end at which the best lies."""
        rounds = (self._round(cell, losses) for cell in self._cells)
        return tuple(itertools.chain.from_iterable(rounds))

    def remarks(self, runs: Sequence[RunConfig]) -> tuple[str, ...]:
        """What is kept equal, and how many runs may follow."""
        found = []
        each = len(self._cells) * len(self.seeds)
        if "training.batch_size" in self.searched:
            found.append("training.batch_size is searched at equal tokens: the steps follow")
        if self.method == "optuna" and self.points > self.per_round:
            later = f"{self.points - self.per_round} more in each cell"
            found.append(f"Optuna proposes {later} in rounds of {self.per_round}: {self.points * each} runs in all")
        if self.extend:
            found.append(extension_remark(self.extend))
        return tuple(found)

    def held_out_run(self, optimum_params: float) -> None:
        """There is none."""
        return None

    @cached_property
    def _cells(self) -> tuple[Cell, ...]:
        found = []
        for size in self.sizes or (None,):
            model = self.base.model if size is None else scaled(self.base.model, *size)
            cost = model_cost(model, self.base.training.sequence_length, self.base.objective.heads)
            per_token = cost.training_flops_per_token
            tokens = self.tokens or tuple(budget / per_token for budget in self.budgets) or (self.base.training.tokens,)
            for each, budget in zip(tokens, self.budgets or [per_token * each for each in tokens]):
                one_step = replace(self.base.training, steps=1)  # until the batch is known
                base = replace(self.base, experiment=self.name, budget_flops=budget, model=model, training=one_step)
                found.append(Cell(base, each))
        return tuple(found)

    def _round(self, cell: Cell, losses: Losses) -> tuple[RunConfig, ...]:
        runs_of = partial(self._runs_of, cell)
        if self.method != "optuna":
            return wanted(self._first, self._extension(self._first, runs_of), runs_of, losses)
        sequential = Sequential(self.axes, self.points, self.per_round, self.points_seed)
        return wanted(sequential({}), self._then_extension(sequential, runs_of), runs_of, losses)

    @cached_property
    def _first(self) -> tuple[Point, ...]:
        if self.method == "grid":
            return tuple(product(self.axes))
        return drawn(self.axes, self.method, self.points, self.points_seed)

    def _extension(self, first: Sequence[Point], runs_of: Callable[[Point], object]) -> Propose:
        outwards = [self._outwards(axis) if axis.is_ordered else None for axis in self.axes]
        return extension(first, self.extend, outwards, runs_of)

    def _then_extension(self, propose: Propose, runs_of: Callable[[Point], object]) -> Propose:
        """What `propose` has, and once it has nothing more, what extends that."""
        extended: list[Propose] = []

        def both(tried: Tried) -> Sequence[Point]:
            points = () if extended else propose(tried)
            if not points and not extended:
                extended.append(self._extension(tuple(tried), runs_of))
            return points or extended[0](tried)

        return both

    def _outwards(self, axis: Axis) -> Outwards:
        """A step of the axis' own grid or, for points that are in none, of the grid that has as many."""
        count = len(axis.grid()) if self.method == "grid" else max(2.0, self.points ** (1 / len(self.axes)))
        return lambda values, upwards: axis.beyond(values[-1 if upwards else 0], upwards, count)

    def _runs_of(self, cell: Cell, point: Point) -> tuple[RunConfig, ...]:
        """The runs of a point, one a seed. Raises ConfigError for too few steps, or a value that no run can have."""
        values = {axis.field: self._typed(axis, value) for axis, value in zip(self.axes, point, strict=True)}
        run = replaced(cell.base, values)
        batch, length = run.training.batch_size, run.training.sequence_length
        largest = self._largest_batch
        sequences = round(cell.tokens / (largest * length)) * largest
        steps = round(sequences / batch)
        check(
            steps >= self.min_steps,
            "tokens",
            round(cell.tokens),
            f"are too few at size {run.model.width}x{run.model.depth}: {steps} steps of {batch} sequences of {length} "
            f"tokens, fewer than min_steps = {self.min_steps}",
            "raise tokens or budgets, or search smaller batches",
        )
        run = replace(run, training=replace(run.training, steps=steps))
        return tuple(with_seed(run, seed) for seed in self.seeds)

    @cached_property
    def _largest_batch(self) -> int:
        axis = next((axis for axis in self.axes if axis.field == "training.batch_size"), None)
        return self.base.training.batch_size if axis is None else max(int(batch) for batch in axis.every)

    def _typed(self, axis: Axis, value: Value) -> Value:
        if axis.scale == "choices":
            return self._choices[axis.field, value]
        return float(value) if isinstance(value_at(self.base, axis.field), float) else value

    @cached_property
    def _choices(self) -> dict[tuple[str, Value], Value]:
        """The choices of each field as values of its type."""
        written = ((axis, choice) for axis in self.axes for choice in axis.choices)
        return {(axis.field, choice): value_at(self._overridden(axis, choice), axis.field) for axis, choice in written}
