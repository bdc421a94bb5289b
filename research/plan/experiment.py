"""What every plan is to the command: the one interface between experiment files and the verbs."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from research.config import RunConfig

# Held-out loss in nats per token of every finished run of a plan, infinite where training diverged.
Losses = Mapping[RunConfig, float]


@runtime_checkable
class Experiment(Protocol):
    """A frozen dataclass that says which runs answer a question; IsoFlop, Grid, Search, Branches and Runs are some.

    name: the folder of its runs. question: printed with the plan and in the report. law: the name of a law of
    analysis/laws to fit to all families together; None to fit each family alone. held_out_flops: budget of the run
    that no fit sees; None if there is no such run. searched: dotted fields of the run config whose best values the runs
    look for in each cell of params and tokens, so that the report is of those; empty for other questions.
    """

    @property
    def name(self) -> str: ...

    @property
    def question(self) -> str: ...

    @property
    def law(self) -> str | None: ...

    @property
    def held_out_flops(self) -> float | None: ...

    @property
    def searched(self) -> tuple[str, ...]: ...

    def runs(self) -> tuple[RunConfig, ...]:
        """Every run that is fitted, always in the same order. Raises ConfigError for a plan that cannot be trained."""
        ...

    def following(self, losses: Losses) -> tuple[RunConfig, ...]:
        """The next round: runs that are fitted, too, and that depend on the losses of all rounds before it.

        Always the same ones for the same losses, and none that `losses` has. Empty where nothing follows.
        """
        ...

    def remarks(self, runs: Sequence[RunConfig]) -> tuple[str, ...]:
        """What is to be said below the table of the plan, of those of its runs that stand in it."""
        ...

    def held_out_run(self, optimum_params: float) -> RunConfig | None:
        """The held-out run, its size near `optimum_params`, which the fit calls optimal at `held_out_flops`."""
        ...
