"""What runs are called: a label for people, and a name that no other run has."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from research.config.identity import fingerprint
from research.config.run import RunConfig


def run_label(config: RunConfig) -> str:
    """What to call a run where there is little room; two runs may share it: transformer-1.2e11-w64-d4-mup-seed0.

    The parametrisation is left out where it is the standard one.
    """
    family = re.sub(r"[^A-Za-z0-9_.]+", "_", config.family)
    budget = [] if config.budget_flops is None else [short_number(config.budget_flops)]
    parametrisation = config.model.parametrisation.name
    scaled = [] if parametrisation == "standard" else [parametrisation]
    size = f"w{config.model.width}", f"d{config.model.depth}"
    return "-".join([family, *budget, *size, *scaled, f"seed{config.training.seed}"])


def run_name(config: RunConfig) -> str:
    """The label made unique by the fingerprint: transformer-1.2e11-w64-d4-seed0-4039cfb9f0bc."""
    return f"{run_label(config)}-{fingerprint(config)}"


def distinct_labels(configs: Sequence[RunConfig]) -> list[str]:
    """A label for each config that no other one here has, and that says what tells the runs apart.

    Runs of one label get the fields in which they differ: lstm-w64-d1-seed0-learning_rate=0.003. Where those are too
    long to print, the run's name.
    """
    alike = defaultdict(list)
    for index, config in enumerate(configs):
        alike[run_label(config)].append(index)
    labels = [""] * len(configs)
    for label, indices in alike.items():
        group = [configs[index] for index in indices]
        found = [label] if len(group) == 1 else _told_apart(label, group)
        for index, text in zip(indices, found):
            labels[index] = text
    return labels


def varying_fields(values: Sequence[Any], path: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Every dotted field in which dataclasses of one type differ, with its value in each; nested ones too."""
    for field in fields(values[0]):
        inner = [getattr(value, field.name) for value in values]
        first = inner[0]
        is_part = field.metadata.get("identity", True) and field.name not in getattr(values[0], "unused", ())
        if not is_part or all(value is first or value == first for value in inner):
            continue
        name = f"{path}.{field.name}".lstrip(".")
        if is_dataclass(first) and all(type(value) is type(first) for value in inner):
            yield from varying_fields(inner, name)
        else:
            yield name, inner


def short_values(values: Sequence[Any]) -> list[str]:
    """Each value as text, numbers with the fewest digits at which different ones still differ."""
    for digits in (3, 6):
        texts = [f"{value:.{digits}g}" if isinstance(value, float) else str(value) for value in values]
        if len(set(texts)) == len(set(values)):
            return texts
    return [str(value) for value in values]


def short_number(value: float) -> str:
    """Three significant digits without the exponent's sign and zeros: 1.2e11, 3e9, 512."""
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _told_apart(label: str, group: Sequence[RunConfig]) -> list[str]:
    """`label` with the value of each field in which the runs of `group` differ; their names where that does not do."""
    varying = list(varying_fields(group))
    leaves = Counter(name.rpartition(".")[2] for name, _ in varying)
    labels = [label] * len(group)
    for name, values in varying:
        leaf = name.rpartition(".")[2]
        texts = short_values(values)
        labels = [f"{old}-{leaf if leaves[leaf] == 1 else name}={text}" for old, text in zip(labels, texts)]
    is_short = all(value is None or isinstance(value, str | int | float) for _, values in varying for value in values)
    return labels if is_short and len(set(labels)) == len(labels) else [run_name(config) for config in group]
