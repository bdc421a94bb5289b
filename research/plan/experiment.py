"""What every plan is to the command: the one interface between experiment files and the verbs."""

from typing import Protocol, runtime_checkable

from research.config import RunConfig


@runtime_checkable
class Experiment(Protocol):
    """A frozen dataclass that says which runs answer a question; IsoFlop, Grid and Runs are some.

    name: the folder of its runs. question: printed with the plan and in the report. law: the name of a law of
    analysis/laws to fit to all families together; None to fit each family alone. held_out_flops: budget of the run
    that no fit sees; None if there is no such run.
    """

    @property
    def name(self) -> str: ...

    @property
    def question(self) -> str: ...

    @property
    def law(self) -> str | None: ...

    @property
    def held_out_flops(self) -> float | None: ...

    def runs(self) -> tuple[RunConfig, ...]:
        """Every run that is fitted, always in the same order. Raises ConfigError for a plan that cannot be trained."""
        ...

    def held_out_run(self, optimum_params: float) -> RunConfig | None:
        """The held-out run, its size near `optimum_params`, which the fit calls optimal at `held_out_flops`."""
        ...
