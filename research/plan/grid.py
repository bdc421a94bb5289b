"""Families of runs side by side: each at the same budgets, with a learning-rate sweep and seeds of its own."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from research.config import RunConfig, check, not_identity, override
from research.plan.cost import run_cost
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

    budgets: training FLOPs of the model's work, whatever computes it (research/plan/cost.py); the steps follow. Empty:
    each run takes base.training.steps. sizes: (width, depth) at each budget, for all families; empty: the base's.
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

    held_out_flops = None

    def __post_init__(self):
        names = [family.name for family in self.families]
        check(
            len(set(names)) == len(names) > 0, "families", names, "must be at least one, of different names", "rename"
        )
        check(len(self.learning_rates) > 0, "learning_rates", (), "must not be empty", "give at least one")
        check(len(self.seeds) > 0, "seeds", (), "must not be empty", "give at least one")
        check(
            len(self.sizes) in (0, len(self.budgets)),
            "sizes",
            self.sizes,
            f"must be one (width, depth) for each of the {len(self.budgets)} budgets, or empty",
            "add or drop some",
        )

    def runs(self) -> tuple[RunConfig, ...]:
        """By family, budget, learning rate, seed. Raises ConfigError for a budget too small for a family."""
        sizes = self.sizes or (None,) * max(1, len(self.budgets))
        return tuple(
            with_seed(replace(run, optimizer=replace(run.optimizer, learning_rate=rate)), seed)
            for family in self.families
            for run in self._of_family(family, list(zip(self.budgets or (None,), sizes)))
            for rate in family.learning_rates or self.learning_rates
            for seed in self.seeds
        )

    def held_out_run(self, optimum_params: float) -> None:
        """There is none."""
        return None

    def _of_family(
        self, family: Family, points: list[tuple[float | None, tuple[int, int] | None]]
    ) -> Iterator[RunConfig]:
        """A run at each (budget, size), whose learning rate and seed are still the base's."""
        base = replace(override(self.base, family.changes), experiment=self.name, family=family.name)
        for budget, size in points:
            run = base if size is None else replace(base, model=scaled(base.model, *size))
            yield self._at_budget(run, budget)

    def _at_budget(self, run: RunConfig, budget: float | None) -> RunConfig:
        steps = run.training.steps
        if budget is not None:
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
        return replace(run, budget_flops=budget, training=replace(run.training, steps=steps))
