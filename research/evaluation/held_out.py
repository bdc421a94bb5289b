"""Loss and accuracy on held-out examples, per domain: nats per token, bits per byte, shares of right answers."""

import math
from typing import Any

import jax

from research.data.batches import Examples
from research.training.feed import whole
from research.training.loss import LossSums
from research.training.step import Program


def held_out_measures(program: Program, params: Any, examples: Examples) -> dict[str, float]:
    """Each measure as `<measure>_<domain>`, and its mean over domains as `<measure>`.

    Measures are loss_nats, token_accuracy (share of tokens whose most probable value is right, the text before given),
    brier (the mean Brier score of a token, 0 to 2, which falls smoothly where token_accuracy jumps),
    exact_match (share of examples with every token right, which is what greedy decoding would reproduce) and, for
    text, bits_per_byte: the loss of a token in bits, times tokens per byte of the text those tokens stand for, so it
    compares models of different tokenizers. Means weigh domains by `examples.domains`. The examples are the same for
    every run on the same data.
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
    sums = jax.device_get(
        [program.evaluate(params, whole(batch, program.batch_sharding)) for batch in held_out.batches]
    )
    total = LossSums(*(sum(map(float, column)) for column in zip(*sums, strict=True)))
    measures = {
        "loss_nats": total.nats / held_out.tokens,
        "token_accuracy": total.correct / held_out.tokens,
        "exact_match": total.exact / total.rows,
        "brier": total.brier / held_out.tokens,
    }
    if held_out.text_bytes is not None:
        measures["bits_per_byte"] = total.nats / math.log(2) / held_out.text_bytes
    return measures
