"""One law for several groups of runs at once: some constants shared, others of each group.

For optimizers, say, with one pair of exponents and a rescaling each, or for the tables of several papers in one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from analysis.laws.definition import Law, LawError, Parameter


def joint(law: Law, groups: Sequence[str], own: Sequence[str], column: str = "group") -> Law:
    """`law` with the constants `own` apart for each of `groups`, and every other one shared.

    A row's group is a number in the table's `column`, an input of the law: 0 for the first of `groups`, and so on. The
    constants of each are named after it, as A_adamw and A_muon. Raises LawError for fewer than two groups, two of one
    name, a constant that `law` has not, or one that it is not linear in: those are looked for on a grid, which
    would grow with every group.
    """
    if len(groups) < 2 or len(set(groups)) < len(groups):
        raise LawError(f"groups = {', '.join(groups) or 'none'}: must be two or more different ones. Fix: name them.")
    free = {parameter.name: parameter for parameter in law.parameters}
    linear = [name for name, parameter in free.items() if not parameter.starts]
    for name in own:
        if name not in linear:
            raise LawError(
                f"own = {name!r}: is no constant in which law {law.name!r} is linear. Fix: use some of "
                f"{', '.join(linear)}."
            )
    if not own or column in law.inputs:
        raise LawError(f"joint of law {law.name!r}: needs constants of each group, and a column that is no input yet.")
    numbered = ", ".join(f"{i} {group}" for i, group in enumerate(groups))
    return replace(
        law,
        name=f"{law.name}_by_{column}",
        formula=f"{law.formula}, with {' and '.join(own)} of each {column}: {numbered}",
        inputs=(*law.inputs, column),
        parameters=(
            *(parameter for name, parameter in free.items() if name not in own),
            *(_of_group(free[name], group) for name in own for group in groups),
        ),
        predict=_Joint(law.predict, tuple(groups), tuple(own), column),
        may_be_zero=(*law.may_be_zero, column),
        choices=(*law.choices, (column, tuple(map(float, range(len(groups)))))),
    )


def _of_group(parameter: Parameter, group: str) -> Parameter:
    return replace(parameter, name=f"{parameter.name}_{group}", meaning=f"{parameter.meaning}, of {group}")


@dataclass(frozen=True)
class _Joint:
    """A law's `predict` with each group's own constants chosen: equal, and so compiled once, for equal values."""

    predict: Callable[[Mapping[str, jax.Array], Mapping[str, jax.Array]], jax.Array]
    groups: tuple[str, ...]
    own: tuple[str, ...]
    column: str

    def __call__(self, parameters: Mapping[str, jax.Array], inputs: Mapping[str, jax.Array]) -> jax.Array:
        chosen = {
            name: sum(
                jnp.where(inputs[self.column] == i, parameters[f"{name}_{group}"], 0.0)
                for i, group in enumerate(self.groups)
            )
            for name in self.own
        }
        return self.predict({**parameters, **chosen}, inputs)
