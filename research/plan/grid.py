"""Families of runs side by side: each at the same budgets, with a learning-rate sweep and seeds of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from research.config import RunConfig, check, not_identity, override
from research.plan.axis import Value, rounded
from research.plan.cost import run_cost
from research.plan.experiment import Losses
from research.plan.recipe import Recipe
from research.plan.rounds import Point, extension, extension_remark, wanted
from research.plan.scaling import scaled, with_seed


@dataclass(frozen=True)
class Family:
    """What is compared with the others: a name, and how it differs from the grid's base run.

    changes: `a.b=value`, as --set writes them. learning_rates: peaks to sweep; empty for the grid's.
    """

    name: str
    changes: tuple[str, ...] = ()
    learning_rates: tuple[float, ...] = ()


@dataclass(frozen=True)
class Grid:
    """Every family at every budget, learning rate and seed; nothing is held out.

    law: of analysis/laws, fitted to all families' runs at their best learning rates together; none: each family alone.

    learning_rates: peaks to sweep; empty where `recipe` sets them. recipe: what runs are trained with by their scale,
    relative to their family's base; a family with learning_rates of its own sweeps them all the same.

    budgets: training FLOPs of the model's work, whatever computes it (research/plan/cost.py); the steps follow. Empty:
    each run takes base.training.steps. sizes: (width, depth) at each budget, for all families, or without budgets each
    of them; empty: the base's.

    extend: further learning rates at most at each end of a sweep of several at which the best rate lies, by its mean
    over seeds, of each family at each budget; one a round, at the ratio of the outermost two. 0: there it is only
    marked.
    """

    name: str
    question: str = not_identity()
    base: RunConfig
    families: tuple[Family, ...]
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)
    budgets: tuple[float, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    law: str | None = None
    min_steps: int = 20  # fewer optimizer steps than this say nothing about a family
    recipe: Recipe = Recipe()
    extend: int = 0

    held_out_flops = None
    searched = ()  # the families are compared, each at its best rate

    def __post_init__(self):
        names = [family.name for family in self.families]
        check(
            len(set(names)) == len(names) > 0, "families", names, "must be at least one, of different names", "rename"
        )
        if self.recipe_sets_rates:
            check(
                not self.learning_rates,
                "learning_rates",
                self.learning_rates,
                f"must be empty, since recipe {self.recipe.name!r} sets them",
                "drop them, or take learning_rate out of recipe.sets",
            )
        else:
            check(
                len(self.learning_rates) > 0 or all(family.learning_rates for family in self.families),
                "learning_rates",
                (),
                "must not be empty where a family has none of its own",
                "give at least one",
            )
        check(
            "batch_tokens" not in self.recipe.sets or len(self.budgets) > 0,
            "recipe.sets",
            self.recipe.sets,
            "has batch_tokens, which follows from the tokens of a budget, and budgets is empty",
            "give budgets, or leave it out",
        )
        check(len(self.seeds) > 0, "seeds", (), "must not be empty", "give at least one")
        check(
            not self.budgets or len(self.sizes) in (0, len(self.budgets)),
            "sizes",
            self.sizes,
            f"must be one (width, depth) for each of the {len(self.budgets)} budgets, or empty",
            "add or drop some",
        )
        check(self.extend >= 0, "extend", self.extend, "must be at least 0", "raise it")

    def runs(self) -> tuple[RunConfig, ...]:
        """By family, budget or size, learning rate, seed. Raises ConfigError for a budget too small for a family."""
        return tuple(
            run for cell, rates in self._cells() for rate in rates or (None,) for run in self._at_rate(cell, (rate,))
        )

    def following(self, losses: Losses) -> tuple[RunConfig, ...]:
        """By family, budget, seed: a further learning rate wherever the best one lies at an end of those tried."""
        if not self.extend:
            return ()
        rounds = []
        for cell, rates in self._cells():
            runs_of = partial(self._at_rate, cell)
            first = [(rate,) for rate in rates]
            rounds.append(wanted(first, extension(first, self.extend, (_outwards,), runs_of), runs_of, losses))
        return tuple(chain.from_iterable(rounds))

    def remarks(self, runs: Sequence[RunConfig]) -> tuple[str, ...]:
        """How many of them lie outside of what the recipe comes from, and whether more may follow."""
        beyond = self.recipe.beyond(runs)
        return (*([beyond] if beyond else []), *([extension_remark(self.extend)] if self.extend else []))

    @property
    def recipe_sets_rates(self) -> bool:
        """Whether the recipe takes the place of a sweep of learning rates."""
        return self.recipe.name != "base" and "learning_rate" in self.recipe.sets

    def held_out_run(self, optimum_params: float) -> None:
        """There is none."""
        return None

    def _cells(self) -> Iterator[tuple[RunConfig, tuple[float, ...]]]:
        """What is equal in all runs of a family at a budget, and the learning rates swept there."""
        sizes = self.sizes or (None,) * max(1, len(self.budgets))
        budgets = self.budgets or (None,) * len(sizes)
        for family in self.families:
            for run in self._of_family(family, list(zip(budgets, sizes))):
                yield run, family.learning_rates or self.learning_rates

    def _at_rate(self, cell: RunConfig, point: Point | tuple[None]) -> tuple[RunConfig, ...]:
        """The runs at one learning rate, the cell's own at None: one a seed."""
        (rate,) = point
        run = cell if rate is None else replace(cell, optimizer=replace(cell.optimizer, learning_rate=rate))
        return tuple(with_seed(run, seed) for seed in self.seeds)

    def _of_family(
        self, family: Family, points: list[tuple[float | None, tuple[int, int] | None]]
    ) -> Iterator[RunConfig]:
        """A run at each (budget, size); its seed is still the base's, and so is its learning rate without a recipe."""
        base = replace(override(self.base, family.changes), experiment=self.name, family=family.name)
        self.recipe.check_fits(base)
        for budget, size in points:
            run = base if size is None else replace(base, model=scaled(base.model, *size))
            yield self.recipe.with_settings(self._at_budget(run, base, budget), base)

    def _at_budget(self, run: RunConfig, base: RunConfig, budget: float | None) -> RunConfig:
        if budget is None:
            return replace(run, budget_flops=None)
        run = replace(run, budget_flops=budget, training=replace(run.training, steps=1))
        one_step = run_cost(run)
        run = self.recipe.with_batch(run, base, budget / one_step.flops * one_step.tokens)
        per_step = run_cost(run).flops_per_step
        steps = round(budget / per_step)
        check(
            steps >= self.min_steps,
            "budgets",
            budget,
            f"is too small for family {run.family!r}: {steps} steps of {per_step:.3g} FLOPs, fewer than min_steps "
            f"= {self.min_steps}",
            "raise the budget, or shrink the batch or the size",
        )
        return replace(run, training=replace(run.training, steps=steps))


def _outwards(rates: Sequence[Value], upwards: bool) -> float:
    """The rate beyond the last one, or before the first: as far as from there to the next, in ratio."""
    end, inner = (rates[-1], rates[-2]) if upwards else (rates[0], rates[1])
    return rounded(end * (end / inner))
