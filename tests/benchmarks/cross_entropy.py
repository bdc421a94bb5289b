"""Chunked cross-entropy against full logits, alternating in one process: time and temporary memory against chunk size.

.venv/bin/python tests/benchmarks/cross_entropy.py
"""

import statistics
import time

import jax
import jax.numpy as jnp

from research.training import loss
from research.training.runtime import configure

BATCH, LENGTH, WIDTH, ROUNDS = 8, 256, 256, 9
CHUNK_LOGITS = (262_144, 1_048_576, 4_194_304, 16_777_216, 2**40)


def full_logits(x_BLD, head_DV, targets_BL, weights_BL):
    logits_BLV = jnp.einsum("bld,dv->blv", x_BLD, head_DV)
    target_BL = jnp.take_along_axis(logits_BLV, targets_BL[..., None], axis=-1)[..., 0]
    return (weights_BL * (jax.nn.logsumexp(logits_BLV, axis=-1) - target_BL)).sum()


def compiled(function, *arguments):
    return jax.jit(jax.value_and_grad(function, argnums=(0, 1))).lower(*arguments).compile()


def main() -> None:
    configure()
    for vocab_size in (8192, 32000):
        keys = jax.random.split(jax.random.key(0), 3)
        arguments = (
            jax.random.normal(keys[0], (BATCH, LENGTH, WIDTH)),
            jax.random.normal(keys[1], (WIDTH, vocab_size)),
            jax.random.randint(keys[2], (BATCH, LENGTH), 0, vocab_size),
            jnp.ones((BATCH, LENGTH)),
        )
        programs = {"full logits": compiled(full_logits, *arguments)}
        for most in CHUNK_LOGITS:
            loss.MAX_CHUNK_LOGITS["cpu"] = most
            chunks = loss.chunks_of(BATCH, LENGTH, vocab_size)
            programs[f"{chunks} chunks"] = compiled(lambda *a: loss.cross_entropy(*a).loss, *arguments)
        seconds = {name: [] for name in programs}
        for _ in range(ROUNDS):
            for name, program in programs.items():
                began = time.perf_counter()
                jax.block_until_ready(program(*arguments))
                seconds[name].append(time.perf_counter() - began)
        reference = statistics.median(seconds["full logits"])
        for name, program in programs.items():
            megabytes = program.memory_analysis().temp_size_in_bytes / 2**20
            took = statistics.median(seconds[name])
            print(
                f"vocabulary {vocab_size:6d} {name:12s} {took * 1e3:7.1f} ms, {reference / took:5.2f}x, "
                f"{megabytes:6.0f} MiB"
            )


if __name__ == "__main__":
    main()
