"""Approach 2 of Hoffmann 2022 as a plan: model sizes at several compute budgets, and the tuple of runs that follows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from research.config import ConfigError, RunConfig, check, not_identity
from research.plan.cost import model_cost, run_cost
from research.plan.experiment import Losses
from research.plan.recipe import Recipe
from research.plan.scaling import scaled, with_seed


@dataclass(frozen=True)
class IsoFlop:
    """Approach 2 of Hoffmann 2022: several compute budgets, several model sizes at each, tokens from the budget.

    `base` is the template; its model fixes the proportions (head width, hidden / width, query / key-value heads) of the
    other sizes, and its learning rate belongs to its width. `recipe` says what the others are trained with.
    """

    name: str
    question: str = not_identity()
    base: RunConfig
    budgets: tuple[float, ...]  # training FLOPs of the model's work (research/plan/cost.py)
    sizes: tuple[tuple[int, int], ...]  # (width, depth) that may be trained
    tokens_per_param: tuple[float, float] = (5.0, 100.0)  # a size is used at a budget if its ratio lies in here
    min_sizes: int = 5  # at each budget
    min_steps: int = 100  # fewer optimizer steps than this say nothing about the size
    recipe: Recipe = Recipe()
    seeds: tuple[int, ...] = (0,)
    held_out_factor: float | None = None  # one last run at this multiple of the largest budget, which no fit sees

    law = None  # of several families together: there is one
    searched = ()

    def __post_init__(self):
        check(
            len(self.budgets) > 0 and all(budget > 0 for budget in self.budgets),
            "budgets",
            self.budgets,
            "must be positive FLOPs",
            "give at least one",
        )
        check(
            len(self.sizes) > 0 and all(min(size) >= 1 for size in self.sizes),
            "sizes",
            self.sizes,
            "must be (width, depth) pairs of at least 1",
            "give at least one",
        )
        low, high = self.tokens_per_param
        check(0 < low < high, "tokens_per_param", self.tokens_per_param, "must be 0 < low < high", "order them")
        self.recipe.check_fits(self.base)
        check(len(self.seeds) > 0, "seeds", self.seeds, "must not be empty", "give at least one")
        check(
            self.held_out_factor is None or self.held_out_factor > 1,
            "held_out_factor",
            self.held_out_factor,
            "must be none or above 1, since the held-out run is an extrapolation",
            "use 4",
        )

    def runs(self) -> tuple[RunConfig, ...]:
        """Every run that is fitted, by budget, then size, then seed.

        Raises ConfigError for a budget at which fewer than `min_sizes` sizes fit, or which is too small for one.
        """
        return tuple(
            with_seed(run, seed)
            for budget in sorted(self.budgets)
            for run in [self._run(budget, size) for size in self._sizes_at(budget)]
            for seed in self.seeds
        )

    def following(self, losses: Losses) -> tuple[RunConfig, ...]:
        """None: sizes and budgets are all planned."""
        return ()

    def remarks(self, runs: Sequence[RunConfig]) -> tuple[str, ...]:
        """How many of them lie outside of what the recipe comes from."""
        beyond = self.recipe.beyond(runs)
        return (beyond,) if beyond else ()

    @property
    def held_out_flops(self) -> float | None:
        """Budget of the held-out run."""
        return None if self.held_out_factor is None else self.held_out_factor * max(self.budgets)

    def held_out_run(self, optimum_params: float) -> RunConfig | None:
        """The held-out run, at the size of `sizes` nearest in ratio to `optimum_params`; None if there is none."""
        if self.held_out_flops is None:
            return None
        size = min(self.sizes, key=lambda size: abs(math.log(self._params(size) / optimum_params)))
        return replace(with_seed(self._run(self.held_out_flops, size), self.seeds[0]), held_out=True)

    def _sizes_at(self, budget: float) -> list[tuple[int, int]]:
        low, high = self.tokens_per_param
        ratios = {size: self._tokens_at(budget, size) / self._params(size) for size in self.sizes}
        chosen = [size for size in sorted(self.sizes, key=self._params) if low <= ratios[size] <= high]
        if len(chosen) < self.min_sizes:
            listed = ", ".join(f"{w}x{d}: {ratio:.3g}" for (w, d), ratio in ratios.items())
            raise ConfigError(
                f"budgets: at {budget:.3g} FLOPs only {len(chosen)} of {len(self.sizes)} sizes have tokens per "
                f"parameter within {self.tokens_per_param}, fewer than min_sizes = {self.min_sizes} ({listed}). "
                "Fix: add sizes, change the budget, or widen tokens_per_param."
            )
        return chosen

    def _run(self, budget: float, size: tuple[int, int]) -> RunConfig:
        model, one_step = scaled(self.base.model, *size), replace(self.base.training, steps=1)
        run = replace(self.base, experiment=self.name, budget_flops=budget, model=model, training=one_step)
        run = self.recipe.with_batch(run, self.base, self._tokens_at(budget, size))
        per_step = run_cost(run).flops_per_step
        steps = round(budget / per_step)
        check(
            steps >= self.min_steps,
            "budgets",
            budget,
            f"is too small for size {size[0]}x{size[1]}: {steps} steps of {per_step:.3g} FLOPs, fewer than "
            f"min_steps = {self.min_steps}",
            "raise the budget, shrink the batch, or drop the size",
        )
        run = replace(run, training=replace(run.training, steps=steps))
        return self.recipe.with_settings(run, self.base)

    def _params(self, size: tuple[int, int]) -> int:
        return model_cost(scaled(self.base.model, *size), self.base.training.sequence_length).params

    def _tokens_at(self, budget: float, size: tuple[int, int]) -> float:
        base = self.base
        cost = model_cost(scaled(base.model, *size), base.training.sequence_length, base.objective.heads)
        return budget / cost.training_flops_per_token
