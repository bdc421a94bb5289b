"""Runs listed one by one."""

from dataclasses import dataclass, replace

from research.config import RunConfig, not_identity


@dataclass(frozen=True)
class Runs:
    """A plain list of runs, for experiments that are no grid: nothing is held out."""

    name: str
    question: str = not_identity()
    configs: tuple[RunConfig, ...]

    held_out_flops = None
    law = None

    def runs(self) -> tuple[RunConfig, ...]:
        return tuple(replace(config, experiment=self.name) for config in self.configs)

    def held_out_run(self, optimum_params: float) -> None:
        return None
