"""Which runs share a compiled step: those that differ in nothing but what it takes as arguments."""

from dataclasses import replace

from research.config.run import RunConfig

_UNNAMED = RunConfig()


def program_of(config: RunConfig) -> RunConfig:
    """`config` without what tells runs of one program apart: equal for two runs if and only if they share one.

    Left out are the names of the plan, the seed (of the start and of the data's order), the run to start from or the
    parent, and the optimizer's numbers.
    Everything else, the number of steps and when a run is saved and measured among it, must be the same, so that such
    runs can also be trained together, step by step.
    """
    return replace(
        config,
        experiment=_UNNAMED.experiment,
        family=_UNNAMED.family,
        budget_flops=None,
        held_out=False,
        start=None,
        parent=None,
        optimizer=config.optimizer.without_numbers(),
        training=replace(config.training, seed=0),
    )
