"""What a model scores on held-out examples, per domain and over all: the measures that its objective names."""

from typing import Any

import jax
import numpy as np

from research.data.batches import Examples
from research.training.feed import whole
from research.training.step import Program


def held_out_measures(program: Program, params: Any, examples: Examples) -> dict[str, float]:
    """Each of the objective's measures as `<measure>_<domain>`, and its mean over domains as `<measure>`.

    Means weigh domains by `examples.domains`. The examples are the same for every run on the same data.
    """
    total = sum(examples.domains.values())
    found: dict[str, float] = {}
    for domain, rate in examples.domains.items():
        for measure, value in _of_domain(program, params, examples, domain).items():
            found[measure] = found.get(measure, 0.0) + value * rate / total
            found[f"{measure}_{domain}"] = value
    return found


def _of_domain(program: Program, params: Any, examples: Examples, domain: str) -> dict[str, float]:
    held_out = examples.validation(domain)
    batches = jax.device_get(
        [program.evaluate(params, whole(batch, program.batch_sharding)) for batch in held_out.batches]
    )
    sums = jax.tree.map(lambda *leaves: sum(np.asarray(leaf, np.float64) for leaf in leaves), *batches)
    return {name: float(value) for name, value in program.measures(sums, held_out).items()}
