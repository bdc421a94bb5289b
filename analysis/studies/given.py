"""What is given for the inputs of a law besides params and tokens, and whether the law then has optima."""

from collections.abc import Mapping

from analysis.fit import FitError
from analysis.laws import Law
from analysis.quantities import is_loss


def given_of(law: Law, given: Mapping[str, float]) -> dict[str, float]:
    """The values as numbers. Raises FitError for what is no further input of the law, or none of its choices."""
    for name in given:
        if name in ("params", "tokens") or name not in law.inputs:
            free = ", ".join(other for other in law.inputs if other not in ("params", "tokens")) or "none"
            raise FitError(f"given {name}: not a further input of law {law.name!r}. Fix: it has {free}.")
    check_choices(law, given)
    return {name: float(value) for name, value in given.items()}


def check_choices(law: Law, inputs: Mapping[str, float]) -> None:
    """Raise FitError for an input that is none of the values it may have."""
    for name, allowed in law.choices:
        if name in inputs and inputs[name] not in allowed:
            choices = ", ".join(f"{value:g}" for value in allowed)
            raise FitError(f"{name} = {inputs[name]:g}: must be one of {choices} in law {law.name!r}. Fix: choose one.")


def optima_note(law: Law, given: Mapping[str, float]) -> str:
    """Why the law has no optima, or nothing."""
    if not is_loss(law.output):
        return (
            f"law = {law.name!r}: its output {law.output} is no loss to be made least. Fix: fit a law of loss, as "
            "chinchilla."
        )
    if not {"params", "tokens"} <= set(law.inputs):
        return (
            f"law = {law.name!r}: has no params and tokens to choose. Fix: fit a law of both, as chinchilla, to runs "
            "that differ in both."
        )
    missing = [name for name in law.inputs if name not in ("params", "tokens", *given)]
    if missing:
        return f"law = {law.name!r}: an optimum needs {missing[0]}. Fix: give it, as --given {missing[0]}=VALUE."
    return ""
