"""Families of runs side by side: each at the same budgets, with a learning-rate sweep and seeds of its own."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from research.config import RunConfig, check, not_identity, override
from research.plan.cost import run_cost
from research.plan.recipe import Recipe
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

    held_out_flops = None

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

    def runs(self) -> tuple[RunConfig, ...]:
        """By family, budget or size, learning rate, seed. Raises ConfigError for a budget too small for a family."""
        sizes = self.sizes or (None,) * max(1, len(self.budgets))
        budgets = self.budgets or (None,) * len(sizes)
        return tuple(
            with_seed(run if rate is None else replace(run, optimizer=replace(run.optimizer, learning_rate=rate)), seed)
            for family in self.families
            for run in self._of_family(family, list(zip(budgets, sizes)))
            for rate in family.learning_rates or self.learning_rates or (None,)
            for seed in self.seeds
        )

    @property
    def recipe_sets_rates(self) -> bool:
        """Whether the recipe takes the place of a sweep of learning rates."""
        return self.recipe.name != "base" and "learning_rate" in self.recipe.sets

    def held_out_run(self, optimum_params: float) -> None:
        """There is none."""
        return None

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
