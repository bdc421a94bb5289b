"""Runs listed one by one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from research.config import RunConfig, not_identity
from research.plan.experiment import Losses


@dataclass(frozen=True)
class Runs:
    """A plain list of runs, for experiments that are no grid: nothing is held out."""

    name: str
    question: str = not_identity()
    configs: tuple[RunConfig, ...]

    held_out_flops = None
    law = None
    searched = ()

    def runs(self) -> tuple[RunConfig, ...]:
        return tuple(replace(config, experiment=self.name) for config in self.configs)

    def following(self, losses: Losses) -> tuple[RunConfig, ...]:
        """None: all are listed."""
        return ()

    def remarks(self, runs: Sequence[RunConfig]) -> tuple[str, ...]:
        """There are none."""
        return ()

    def held_out_run(self, optimum_params: float) -> None:
        return None
