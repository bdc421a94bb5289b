"""What a worker is given at a time: one run, or several of one program that it trains together."""

from collections import defaultdict
from collections.abc import Sequence

from research.config import RunConfig, program_of
from research.runs import RunFolder

Job = tuple[RunConfig, RunFolder]


def together(configs: Sequence[RunConfig], most: int, workers: int) -> list[tuple[RunConfig, ...]]:
    """Groups of at most `most` runs of one program (config.program_of), in the order of their first runs.

    No group is more than a worker's share of all runs, so that none of the `workers` idles while another has several.
    """
    most = min(most, -(-len(configs) // workers))
    alike: dict[RunConfig, list[RunConfig]] = defaultdict(list)
    for config in configs:
        alike[program_of(config)].append(config)
    groups = []
    for members in alike.values():
        parts = -(-len(members) // most)
        groups += [tuple(members[part::parts]) for part in range(parts)]
    order = {config: place for place, config in enumerate(configs)}
    return sorted(groups, key=lambda group: order[group[0]])
