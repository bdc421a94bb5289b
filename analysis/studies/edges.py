"""The best settings of a cell that were run, and whether they lie at an end of what was run there."""

from collections.abc import Sequence

import pandas as pd


def edges_of(group: pd.DataFrame, axes: Sequence[str], failed: pd.DataFrame | None = None) -> tuple[str, ...]:
    """The axes along which the best runs of a cell lie at an end of the several values that were run there.

    The best are those of the least mean loss over runs of equal settings (seeds): beyond that end, there may be better.
    failed: runs of the cell that have no loss, and whose settings were tried, too.
    """
    best, _ = best_settings(group, axes)
    tried = group[[*axes]] if failed is None else pd.concat([group[[*axes]], failed[[*axes]]])
    ends = {name: (tried[name].min(), tried[name].max()) for name in axes if tried[name].nunique() > 1}
    return tuple(name for name, values in ends.items() if best[name] in values)


def best_settings(group: pd.DataFrame, axes: Sequence[str]) -> tuple[dict[str, float], float]:
    """The settings of the least mean loss over runs of equal ones, seeds say, and that loss."""
    means = group.groupby(list(axes))["loss_nats"].mean()
    best = means.idxmin() if len(axes) > 1 else (means.idxmin(),)
    return dict(zip(axes, map(float, best), strict=True)), float(means.min())
