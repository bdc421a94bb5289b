"""Families of runs side by side: each at the same budgets, with a learning-rate sweep and seeds of its own."""

from dataclasses import dataclass, replace

from research.config import RunConfig, check, not_identity, override
from research.plan.cost import run_cost
from research.plan.scaling import scaled


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
        return tuple(
            self._run(family, budget, size, rate, seed)
            for family in self.families
            for budget, size in zip(self.budgets or (None,), self.sizes or (None,) * max(1, len(self.budgets)))
            for rate in family.learning_rates or self.learning_rates
            for seed in self.seeds
        )

    def held_out_run(self, optimum_params: float) -> None:
        """There is none."""
        return None

    def _run(
        self, family: Family, budget: float | None, size: tuple[int, int] | None, rate: float, seed: int
    ) -> RunConfig:
        run = override(self.base, family.changes)
        if size is not None:
            run = replace(run, model=scaled(run.model, *size))
        steps = run.training.steps
        if budget is not None:
            per_step = run_cost(run).flops_per_step
            steps = round(budget / per_step)
            check(
                steps >= self.min_steps,
                "budgets",
                budget,
                f"is too small for family {family.name!r}: {steps} steps of {per_step:.3g} FLOPs, fewer than min_steps "
                f"= {self.min_steps}",
                "raise the budget, or shrink the batch or the size",
            )
        return replace(
            run,
            experiment=self.name,
            family=family.name,
            budget_flops=budget,
            optimizer=replace(run.optimizer, learning_rate=rate),
            training=replace(run.training, steps=steps, seed=seed),
        )
