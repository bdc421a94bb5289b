"""Mamba and Mamba-2 on this machine: their own algorithms, Hugging Face's Mamba-2 in torch, and decoding.

    .venv-oracles/bin/python tests/benchmarks/mamba.py

Blocks of width 256 (512 inner channels), float32, gradients for every parameter and the input. Printed:

- Mamba-2's block, batch 4 x 512, against the same block of Hugging Face in torch eager at two chunk sizes. Each side
  has a process of its own, and they take turns;
- its chunked products against its recurrent scan, and the cost of four times the length;
- the selective scan of Mamba alone, batch 4 x 512 and 1 x 2048, gradients for all six inputs, chunked against
  sequential (and associative, at the first size): time and temporary memory;
- seconds a token of greedy decoding, one layer, after 128 and after 8192 tokens, for every mixer whose state has one
  size.
"""

import statistics
import sys
import time
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import torch
from mixers import NEED_OTHERS
from train_step import answer, describe_machine, take_turns, use_all_cores

from research.config import Mamba2Config, MambaConfig, ModelConfig
from research.models import language_model
from research.models.layers import Shared, draw
from research.models.mixers import SEQUENCE_MIXERS
from research.models.state_spaces.selective_scan import selective_scan
from research.training.runtime import configure

WIDTH, BATCH, LENGTH = 256, 4, 512
THEIR_CHUNKS = (64, 256)
ROUNDS, DECODED = 5, 32
DECODE_LENGTHS = (128, 8192)


def block_step(module: nn.Module, batch: int, length: int):
    """(compiled gradient of one mixer, its arguments)."""

    def apply(params, x_BLD):
        return module.apply({"params": params}, x_BLD, None, Shared())[0]

    x_BLD = jax.random.normal(jax.random.key(1), (batch, length, WIDTH))
    boxed = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, None, Shared()), x_BLD)["params"]
    arguments = (draw(boxed, jax.random.key(0)), x_BLD)
    program = jax.jit(jax.grad(lambda *arguments: apply(*arguments).sum(), argnums=(0, 1))).lower(*arguments).compile()
    return program, arguments


def scan_step(algorithm: str, batch: int, length: int):
    """(compiled gradient of the selective scan at the block's sizes, its arguments)."""
    cfg = MambaConfig()
    N, P = cfg.state_size, cfg.inner(WIDTH)
    shapes = [(batch, length, P)] * 2 + [(N, P)] + [(batch, length, N)] * 2 + [(batch, N, P)]
    keys = jax.random.split(jax.random.key(0), len(shapes))
    x, step, rate, write, read, state = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes))
    arguments = (x, 0.01 * jnp.exp(step), -jnp.exp(rate), write, read, state)

    def loss(*inputs: jax.Array) -> jax.Array:
        return (selective_scan(algorithm, cfg.chunk, *inputs)[0] ** 2).sum()

    return jax.jit(jax.grad(loss, argnums=range(6))).lower(*arguments).compile(), arguments


def mamba2(**fields) -> nn.Module:
    model = ModelConfig(width=WIDTH, depth=1, pattern="mamba2", mamba2=Mamba2Config(**fields))
    return SEQUENCE_MIXERS["mamba2"].module(model, 0)


def their_step(chunk: int) -> Callable[[], None]:
    """Hugging Face's block with its reference algorithm, which is what a machine without their kernels runs."""
    from transformers import Mamba2Config as Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    cfg = Mamba2Config()
    config = Config(
        hidden_size=WIDTH, num_heads=cfg.heads(WIDTH), head_dim=cfg.head_dim, state_size=cfg.state_size,
        n_groups=cfg.groups, expand=cfg.expand, chunk_size=chunk,
    )  # fmt: skip
    block = Mamba2Mixer(config, layer_idx=0)
    for parameter in block.parameters():
        torch.nn.init.uniform_(parameter, -0.05, 0.05)
    x = torch.randn(BATCH, LENGTH, WIDTH, requires_grad=True)

    def step() -> None:
        block.zero_grad()
        block(x).sum().backward()

    return step


def our_step() -> Callable[[], None]:
    program, arguments = block_step(mamba2(), BATCH, LENGTH)
    return lambda: jax.block_until_ready(program(*arguments))


def serve(side: str, chunk: int) -> None:
    if side == "ours":
        configure()
        program, arguments = block_step(mamba2(), BATCH, LENGTH)
        answer(lambda: jax.block_until_ready(program(*arguments)), "")
    else:
        use_all_cores()
        answer(their_step(chunk), "")


def against_torch() -> None:
    for chunk in THEIR_CHUNKS:
        (_, our_seconds), (_, their_seconds) = take_turns(__file__, chunk).values()
        print(
            f"mamba2 block, {BATCH} x {LENGTH}: ours {our_seconds * 1e3:.0f} ms, torch in chunks of {chunk} "
            f"{their_seconds * 1e3:.0f} ms, ratio {their_seconds / our_seconds:.2f}"
        )


def own_algorithms() -> None:
    programs = {
        "mamba2 chunked": block_step(mamba2(), BATCH, LENGTH),
        "mamba2 chunked, 4 x the length": block_step(mamba2(), BATCH, 4 * LENGTH),
        "mamba2 recurrent": block_step(mamba2(algorithm="recurrent"), BATCH, LENGTH),
    }
    for algorithm in ("chunked", "sequential"):
        for batch, length in ((BATCH, LENGTH), (1, 4 * LENGTH)):
            programs[f"scan {algorithm} {batch} x {length}"] = scan_step(algorithm, batch, length)
    programs[f"scan associative {BATCH} x {LENGTH}"] = scan_step("associative", BATCH, LENGTH)
    seconds = {name: [] for name in programs}
    for program, arguments in programs.values():
        jax.block_until_ready(program(*arguments))
    for _ in range(ROUNDS):
        for name, (program, arguments) in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            seconds[name].append(time.perf_counter() - began)
    taken = {name: statistics.median(values) for name, values in seconds.items()}
    held = {name: program.memory_analysis().temp_size_in_bytes for name, (program, _) in programs.items()}
    for name in programs:
        print(f"  {name:32s} {taken[name] * 1e3:8.1f} ms {held[name] / 2**20:8.1f} MiB")
    once, longer = taken["mamba2 chunked"], taken["mamba2 chunked, 4 x the length"]
    print(f"mamba2: recurrent / chunked {taken['mamba2 recurrent'] / once:.2f}, 4 x the length {longer / once:.2f} x")
    for batch, length in ((BATCH, LENGTH), (1, 4 * LENGTH)):
        chunked, sequential = (f"scan {algorithm} {batch} x {length}" for algorithm in ("chunked", "sequential"))
        print(
            f"scan {batch} x {length}: sequential / chunked {taken[sequential] / taken[chunked]:.2f} in time, "
            f"{held[sequential] / held[chunked]:.2f} in temporary memory"
        )


def decoding() -> None:
    """Greedy decoding of one sequence, one token a call, with the state that a prompt of each length left."""
    step = jax.jit(language_model.decode_step, static_argnums=0)
    for mixer, entry in SEQUENCE_MIXERS.items():
        if mixer.endswith(NEED_OTHERS):
            continue
        model = ModelConfig(width=WIDTH, depth=1, pattern=mixer, **_long(mixer))
        if len({entry.state_bytes(model, length, 4) for length in DECODE_LENGTHS}) > 1:
            continue
        params, states = language_model.init(model, jax.random.key(0)), {}
        for length in DECODE_LENGTHS:
            prompt = jax.random.randint(jax.random.key(1), (1, length), 0, model.vocab_size)
            empty = language_model.init_states(model, 1, length + DECODED * (ROUNDS + 1))
            states[length] = step(model, params, prompt, empty)
        seconds = {length: [] for length in states}
        for round_number in range(ROUNDS + 1):
            for length, (logits, state) in states.items():
                began = time.perf_counter()
                for _ in range(DECODED):
                    logits, state = step(model, params, logits.argmax(-1)[:, None], state)
                jax.block_until_ready(logits)
                if round_number:  # the first compiles
                    seconds[length].append((time.perf_counter() - began) / DECODED)
        short, long = (statistics.median(seconds[length]) for length in DECODE_LENGTHS)
        print(
            f"decoding {mixer:10s} {short * 1e6:6.0f} us a token, after 8192 {long * 1e6:6.0f} us: {long / short:.2f}"
        )


def _long(mixer: str) -> dict:
    """S4's kernel has a length, which must hold the prompt."""
    model = ModelConfig(pattern="attention")
    return {"s4": type(model.s4)(kernel_length=2 * DECODE_LENGTHS[-1])} if mixer == "s4" else {}


def main() -> None:
    describe_machine()
    configure()
    against_torch()
    own_algorithms()
    decoding()


if __name__ == "__main__":
    if sys.argv[1:]:
        serve(sys.argv[1], int(sys.argv[2]))
    else:
        main()
