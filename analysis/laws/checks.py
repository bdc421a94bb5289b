"""What a law must be for the fitter, checked where a user's own is loaded: mistakes get sentences, not tracebacks."""

import jax
import jax.numpy as jnp

from analysis.backend import float64_on_cpu
from analysis.laws.definition import Law, LawError

ROUNDING = 1e-9  # of the largest second derivative of a law that is linear


def check_law(law: Law) -> Law:
    """`law`, if its `predict` asks for what the law declares, computes in jax, and is linear where it says so.

    Raises LawError naming the law, what is wrong with it and the fix.
    """
    for parameter in law.parameters:
        if parameter.start_unit and parameter.start_unit not in law.inputs:
            raise LawError(
                f"start_unit = {parameter.start_unit!r} of {parameter.name} in law {law.name!r}: is none of its "
                f"inputs. Fix: use one of {', '.join(law.inputs)}."
            )
    try:
        value, curvature = _at_some_point(law)
    except KeyError as error:
        raise LawError(
            f"law {law.name!r}: predict asks for {error}. Fix: its parameters are {', '.join(law.names)}, its inputs "
            f"{', '.join(law.inputs)}."
        ) from error
    except Exception as error:  # whatever the user's own function raises
        said = str(error).splitlines()[0] if str(error) else ""
        raise LawError(
            f"law {law.name!r}: predict fails in jax, {type(error).__name__}: {said} Fix: write it in jax.numpy, "
            "without branches on values."
        ) from error
    linear, zero = [name for name in law.names if name in curvature], ROUNDING * max(1.0, abs(value))
    bent = [name for name in linear if curvature[name][name] > zero]  # else by a product of two of them
    bent += [name for name in linear if max(curvature[name].values()) > zero]
    if bent:
        raise LawError(
            f"starts of {bent[0]} in law {law.name!r}: are empty, which says that the law is linear in "
            f"{' and '.join(linear)} together, and it is not. Fix: give {bent[0]} starts, such as (0.1, 0.3, 1.0)."
        )
    return law


def _at_some_point(law: Law) -> tuple[float, dict[str, dict[str, float]]]:
    """The law inside its bounds, and its second derivatives, unsigned, by the parameters that have no starts."""

    @jax.jit
    def both(constants: dict, inputs: dict) -> tuple:
        linear = {p.name: constants[p.name] for p in law.parameters if not p.starts}
        second = jax.hessian(lambda some: law.predict({**constants, **some}, inputs))(linear) if linear else {}
        return law.predict(constants, inputs), jax.tree.map(jnp.abs, second)

    with float64_on_cpu():
        constants = law.unpack(jnp.linspace(-0.4, 0.3, len(law.parameters)))
        value, curvature = both(constants, {name: jnp.asarray(1.5 + 0.25 * i) for i, name in enumerate(law.inputs)})
        return float(value), jax.tree.map(float, curvature)
