"""Several runs of one program as one: each in its lane of arrays with a leading axis, stepped by one program.

Under vmap on accelerators; on CPUs a step takes the lanes in turn (lax.map), since vmap's batched products are slow
there: by tests/benchmarks/runs_together.py, a sweep of 8 runs at widths 64 and 128 had 0.93 and 0.77 times the
throughput of the runs apart under vmap, and 0.97 and 1.02 times in turn.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.sharding import platform
from research.training.step import Program


class Lanes(NamedTuple):
    """How the trees of the runs and the tree of all lanes become each other; of one run alone they are the same.

    stack(trees) -> tree of device arrays; stack_host(trees), of numpy arrays or numbers; lane(tree, index) -> the
    run's, on the device; host_lane(tree, index), of numpy arrays. train(state, batch, numbers) is the program's of all
    lanes at once.
    """

    stack: Callable[[Sequence[Any]], Any]
    stack_host: Callable[[Sequence[Any]], Any]
    lane: Callable[[Any, int], Any]
    host_lane: Callable[[Any, int], Any]
    train: Callable[[Any, Any, Any], tuple[Any, Any]]


def make_lanes(program: Program, runs: int) -> Lanes:
    """Lanes of `runs` runs of `program`. One run alone trains by the program itself, to the bit."""
    if runs == 1:
        return Lanes(_only, _only, lambda tree, index: tree, lambda tree, index: tree, program.train)
    return Lanes(
        stack=jax.jit(lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)),
        stack_host=lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees),
        lane=jax.jit(lambda tree, index: jax.tree.map(lambda leaf: leaf[index], tree)),
        host_lane=lambda tree, index: jax.tree.map(lambda leaf: leaf[index], tree),
        train=jax.jit(_in_turn(program.train) if platform() == "cpu" else jax.vmap(program.train), donate_argnums=0),
    )


def _in_turn(train: Callable[[Any, Any, Any], tuple[Any, Any]]) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    return lambda *lanes: jax.lax.map(lambda lane: train(*lane), lanes)


def _only(trees: Sequence[Any]) -> Any:
    (tree,) = trees
    return tree
