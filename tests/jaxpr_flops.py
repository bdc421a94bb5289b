"""Oracle: count matrix-product FLOPs by walking a jaxpr, scan bodies times their length.

XLA's own cost_analysis counts a scan body once, so it cannot serve.
"""

import math

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

ELEMENTWISE_LOOPS = {"while", "cond"}


def count(function, *args) -> int:
    """2 * multiply-adds of every dot_general and ragged_dot that `function(*args)` executes; args may be abstract."""
    return _walk(jax.make_jaxpr(function)(*args).jaxpr)


def _walk(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if equation.params.get("branches_platforms"):  # one branch a platform: the accelerators', which is named last
            total += _walk(equation.params["branches"][-1].jaxpr)
            continue
        inner = sum(_walk(sub) for sub in _inner_jaxprs(equation.params))
        if name == "dot_general":
            total += _dot_flops(equation)
        elif name == "ragged_dot_general":
            total += _ragged_dot_flops(equation)
        elif name == "scan":
            total += inner * equation.params["length"]
        elif name in ELEMENTWISE_LOOPS:
            assert inner == 0, f"{name} with matrix products: its trip count is unknown to the walk"
        else:
            total += inner
    return total


def _inner_jaxprs(params: dict) -> list:
    leaves = jax.tree.leaves(list(params.values()), is_leaf=lambda leaf: isinstance(leaf, (Jaxpr, ClosedJaxpr)))
    return [getattr(leaf, "jaxpr", leaf) for leaf in leaves if isinstance(leaf, (Jaxpr, ClosedJaxpr))]


def _dot_flops(equation) -> int:
    (contracting, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracting)


def _ragged_dot_flops(equation) -> int:
    """Each row meets one group's matrix, whether rows are kept (the product) or summed (the weights' gradient)."""
    numbers = equation.params["ragged_dot_dimension_numbers"]
    (_, contracted), batch = numbers.dot_dimension_numbers
    assert batch == ((), ())
    left, right = (variable.aval.shape for variable in equation.invars[:2])
    gone = (*contracted, *numbers.rhs_group_dimensions)
    return 2 * math.prod(left) * math.prod(size for axis, size in enumerate(right) if axis not in gone)
