"""Loss on held-out documents, per domain, in nats per token and bits per byte."""

import math
from typing import Any

import jax

from research.config import RunConfig
from research.data.batches import validation_batches
from research.data.token_file import TokenFile
from research.training.feed import whole
from research.training.step import Program


def held_out_losses(config: RunConfig, program: Program, params: Any, tokens: TokenFile) -> dict[str, float]:
    """`loss_nats_<domain>` and `bits_per_byte_<domain>`, and their means `loss_nats` and `bits_per_byte`.

    Means weigh domains by the sources' mixture rates. The tokens are the first `evaluation.tokens` of each domain's
    validation file, the same for every run on that file; a bit per byte is the loss of a token in bits, times tokens
    per byte of the text those tokens stand for, so it compares models of different tokenizers.
    """
    total_rate = sum(source.rate for source in config.data.sources)
    found = {"loss_nats": 0.0, "bits_per_byte": 0.0}
    for source in config.data.sources:
        nats_per_token, bits_per_byte = _domain_loss(config, program, params, tokens, source.name)
        found[f"loss_nats_{source.name}"], found[f"bits_per_byte_{source.name}"] = nats_per_token, bits_per_byte
        found["loss_nats"] += nats_per_token * source.rate / total_rate
        found["bits_per_byte"] += bits_per_byte * source.rate / total_rate
    return found


def _domain_loss(
    config: RunConfig, program: Program, params: Any, tokens: TokenFile, domain: str
) -> tuple[float, float]:
    held_out = validation_batches(
        tokens,
        domain,
        batch_size=config.evaluation.batch_size,
        sequence_length=config.training.sequence_length,
        max_tokens=config.evaluation.tokens,
    )
    sums = [program.evaluate(params, whole(batch, program.batch_sharding)) for batch in held_out.batches]
    nats = sum(float(s.nats) for s in jax.device_get(sums))
    return nats / held_out.tokens, nats / math.log(2) / held_out.text_bytes
