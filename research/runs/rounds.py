"""The rounds of a plan, found from what is on disk: its sweep, then what follows from the results of that."""

from collections.abc import Iterator

from research.config import RunConfig, check, run_name
from research.runs.folder import folder_of
from research.runs.plan_folder import PlanFolder


def rounds_of(plan: PlanFolder) -> Iterator[tuple[RunConfig, ...]]:
    """Every round that is known, the planned runs first; ends with one that is not finished, or that none follows.

    The next one is looked for when it is asked for, so that whoever trains each round as it comes gets them all. Raises
    ConfigError for a plan whose next round has a run of an earlier one, which would never end.
    """
    losses: dict[RunConfig, float] = {}
    configs = plan.configs
    while configs:
        yield configs
        for config in configs:
            loss = folder_of(plan.runs_dir, config).loss_nats()
            if loss is None:
                return
            losses[config] = loss
        configs = plan.checked(plan.experiment.following(losses))
        again = [run_name(config) for config in configs if config in losses]
        check(
            not again,
            f"following of {plan.experiment.name}",
            again[:1],
            "is a run of an earlier round",
            "return runs that `losses` lacks, and nothing at the end",
        )
