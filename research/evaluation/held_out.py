"""What a model scores on held-out examples, per domain and over all: the measures that its objective names."""

from typing import Any

import jax
import numpy as np

from research.data.batches import Examples
from research.training.feed import whole
from research.training.step import Program


def held_out_measures(program: Program, params: Any, examples: Examples) -> dict[str, float]:
    """Each of the objective's measures as `<measure>_<domain>`, and its mean over domains as `<measure>`.

    Means weigh domains by `examples.domains`; there is none of a measure that some domain lacks. The examples are the
    same for every run on the same data.
    """
    total = sum(examples.domains.values())
    of_domains = {domain: _of_domain(program, params, examples, domain) for domain in examples.domains}
    found = {f"{name}_{domain}": value for domain, named in of_domains.items() for name, value in named.items()}
    for name in next(iter(of_domains.values())):
        if all(name in named for named in of_domains.values()):
            found[name] = sum(of_domains[domain][name] * rate / total for domain, rate in examples.domains.items())
    return found


def _of_domain(program: Program, params: Any, examples: Examples, domain: str) -> dict[str, float]:
    held_out = examples.validation(domain)
    batches = jax.device_get(
        [program.evaluate(params, whole(batch, program.batch_sharding)) for batch in held_out.batches]
    )
    sums = jax.tree.map(lambda *leaves: sum(np.asarray(leaf, np.float64) for leaf in leaves), *batches)
    return {name: float(value) for name, value in program.measures(sums, held_out).items()}
