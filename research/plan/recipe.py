"""A recipe as a value: which rule sets a plan's runs, with its constants and what of it is followed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from research.config import ConfigError, OptimizerConfig, RunConfig, check, check_choice
from research.plan.cost import TRAINING_OVER_FORWARD, model_cost
from research.plan.recipes import RULES, Rule, Scale, Setting, Settings
from research.plan.recipes.fitted import CONSTANTS as FITTED_CONSTANTS
from research.plan.recipes.fitted import read


@dataclass(frozen=True)
class Recipe:
    """Sets what a plan's runs are trained with by their scale: Recipe("step_law").

    constants: of a rule that has some, by name. sets: what of the rule is followed; all else stays the base's, so that
    the batch, too, is the base's unless it is asked for.
    """

    name: str = "base"  # of RULES
    constants: tuple[tuple[str, float], ...] = ()
    sets: tuple[Setting, ...] = ("learning_rate",)

    def __post_init__(self):
        check_choice("recipe.name", self.name, tuple(RULES))
        check(
            len(set(self.sets)) == len(self.sets) > 0,
            "recipe.sets",
            self.sets,
            "must name one setting or more, each once",
            "write learning_rate, or leave it out",
        )
        self._check_constants()

    def _check_constants(self) -> None:
        names = [name for name, _ in self.constants]
        wanted = self.rule.constants
        if wanted is None:
            known = set(names) <= set(FITTED_CONSTANTS) and any(name.endswith(".scale") for name in names)
            check(
                known and len(set(names)) == len(names),
                "recipe.constants",
                self.constants,
                f"must be some of {', '.join(FITTED_CONSTANTS)}, each once, with a scale among them",
                "read them from a file of isoflop bowls --json, as recipe=fitted_recipe(Path(FILE))",
            )
        else:
            check(
                sorted(names) == sorted(wanted),
                "recipe.constants",
                self.constants,
                f"must be {_listed(wanted)} for {self.name!r}",
                f"write recipe.constants={json.dumps([[name, 1.0] for name in wanted])}, with values of your own"
                if wanted
                else "write recipe.constants=[]",
            )

    @property
    def rule(self) -> Rule:
        return RULES[self.name]

    def __call__(self, scale: Scale) -> Settings:
        """What the rule says at a scale, followed or not."""
        return self.rule.settings(scale, dict(self.constants))

    def check_fits(self, base: RunConfig) -> None:
        """Raise ConfigError where the rate would be scaled twice, or by nothing: see `Rule.parametrisations`."""
        if "learning_rate" not in self.sets or self.rule.parametrisations == "any":
            return
        name = base.model.parametrisation.name
        wants_standard = self.rule.parametrisations == "standard"
        check(
            (name == "standard") == wants_standard,
            "recipe.name",
            self.name,
            f"its rates are for models that are {'not ' * wants_standard}scaled by model.parametrisation, and "
            f"model.parametrisation.name = {name!r}"
            + (", which says itself how rates change with the width" if wants_standard else " scales none"),
            "use recipe mup_transfer, or the standard parametrisation"
            if wants_standard
            else "set model.parametrisation.name=mup, with its base_width, or use recipe base",
        )

    def with_batch(self, run: RunConfig, base: RunConfig, tokens: float) -> RunConfig:
        """`run` with the batch that the rule says for `tokens` in all, in whole sequences that split into the run's
        microbatches; the run itself unless `sets` has batch_tokens. Raises ConfigError where the rule has no batch."""
        if "batch_tokens" not in self.sets:
            return run
        said = self._said(replace(scale_of(run, base), tokens=tokens), "batch_tokens")
        parts = run.training.microbatches
        sequences = parts * max(1, round(said / run.training.sequence_length / parts))
        return replace(run, training=replace(run.training, batch_size=sequences))

    def with_settings(self, run: RunConfig, base: RunConfig) -> RunConfig:
        """`run`, whose batch and steps are final, with the optimizer that the rule says for it.

        Raises ConfigError for a setting that the rule or the optimizer does not have, or a warm-up longer than the run.
        """
        scale = scale_of(run, base)
        changes = {}
        for setting in self.sets:
            if setting == "warmup_tokens":
                changes["warmup_fraction"] = self._warmup_fraction(scale)
            elif setting != "batch_tokens":
                changes[setting] = self._said(scale, setting)
        return replace(run, optimizer=_changed(run.optimizer, changes))

    def beyond(self, runs: Sequence[RunConfig]) -> str:
        """What to say of runs that lie outside of those that the rule comes from; nothing if none does."""
        outside = [self.rule.outside(scale_of(run, run)) for run in runs]
        quantities = dict.fromkeys(name for names in outside for name in names)
        if not quantities:
            return ""
        ranges = ", ".join(map(self.rule.range_of, quantities))
        return (
            f"recipe {self.name}: {sum(map(bool, outside))} of {len(runs)} runs lie outside of those that it comes "
            f"from ({ranges})"
        )

    def _said(self, scale: Scale, setting: Setting) -> float:
        said = getattr(self(scale), setting)
        check(
            said is not None,
            "recipe.sets",
            setting,
            f"{self.name!r} says nothing of it for {scale.params:.3g} params and {scale.tokens:.3g} tokens",
            "leave it out of sets, or use another recipe (isoflop recipes --params N --tokens D shows what each says)",
        )
        return said

    def _warmup_fraction(self, scale: Scale) -> float:
        said = self._said(scale, "warmup_tokens")
        check(
            said <= scale.tokens,
            "recipe.sets",
            "warmup_tokens",
            f"{self.name!r} warms up over {said:.3g} tokens, more than the run's {scale.tokens:.3g}",
            "leave warmup_tokens out of sets",
        )
        return said / scale.tokens


def fitted_recipe(path: Path, sets: tuple[Setting, ...] = ("learning_rate",)) -> Recipe:
    """The recipe of the laws that `isoflop bowls SWEEP.csv --json FILE` wrote, its constants as values in the plan.

    Raises ConfigError for a file that holds none.
    """
    return Recipe("fitted", read(path).constants, sets)


def scale_of(run: RunConfig, base: RunConfig) -> Scale:
    """A run's scale under every count; `base` is the run that its plan scales."""
    model = model_cost(run.model, run.training.sequence_length)
    head_flops = TRAINING_OVER_FORWARD * 2 * run.model.vocab_size * run.model.width
    return Scale(
        params=model.params,
        non_embedding_params=model.params - model.embedding_params,
        head_params=model.matmul_params,
        flops_per_token=model.training_flops_per_token,
        non_embedding_flops_per_token=model.training_flops_per_token - head_flops,
        tokens=run.training.tokens,
        batch_tokens=run.training.batch_tokens,
        base_rate=base.optimizer.learning_rate,
        width_ratio=run.model.width / base.model.width,
    )


def _changed(optimizer: OptimizerConfig, changes: dict[str, float]) -> OptimizerConfig:
    for name in changes:
        if not hasattr(optimizer, name):
            raise ConfigError(
                f"recipe.sets = {name!r}: is no setting of the optimizer {type(optimizer).__name__}. Fix: leave it out "
                "of sets, or train with another optimizer."
            )
    return replace(optimizer, **changes)


def _listed(names: tuple[str, ...]) -> str:
    return f"values of {', '.join(names)}" if names else "empty"
