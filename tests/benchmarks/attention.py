"""Attention's programs against each other by length; with --tpu, what compiles for a TPU where there is none.

    python tests/benchmarks/attention.py [--lengths 256,1024,2048,4096] [--batch 1] [--dtype float32] [--rounds 5]
    python tests/benchmarks/attention.py --tpu v5e:2x2

A step is the gradient of one call, 8 heads of 64 channels over 4 key-value heads, causal; programs take turns in every
round. Printed for each: the median milliseconds and the temporary memory; `auto` marks what is chosen here. --tpu needs
libtpu and no TPU: it compiles splash attention for these chips, forward and backward, on one and on a mesh of data and
tensor, for several head sizes, masks and dtypes, and prints the memory of each. That proves that Mosaic takes the
kernel and that it fits, not its numbers nor its speed.
"""

import argparse
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from research.config import AttentionConfig, MeshConfig, ModelConfig
from research.models.kernels.attention import Call, attend, choose
from research.models.kernels.attention_mask import Mask
from research.sharding import make_mesh, partition_spec, platform
from research.training.runtime import configure

HEADS, KV_HEADS, CHANNELS = 8, 4, 64
QUERIES, KEYS = "batch length heads head_dim", "batch length kv_heads head_dim"
# (length, channels of keys, of values, dtype, mask, padded)
COMPILED = [
    (2048, 128, 128, "bfloat16", Mask(), False),
    (2000, 64, 64, "bfloat16", Mask(), False),
    (2048, 80, 80, "bfloat16", Mask(window=512), False),
    (2048, 192, 128, "bfloat16", Mask(), True),
    (2048, 128, 128, "float32", Mask(), True),
    (1500, 128, 128, "bfloat16", Mask(causal=False, ends_early=True), True),
]


def gradient(algorithm: str, mask: Mask):
    model = ModelConfig(attention=AttentionConfig(algorithm=algorithm))

    def loss(q, k, v, real_BS):
        own = Mask(mask.causal, mask.window, real_BS=real_BS, ends_early=mask.ends_early)
        return attend(model, "attention", q, k, v, own).astype(jnp.float32).sum()

    return jax.jit(jax.grad(loss, (0, 1, 2)))


def times(lengths: list[int], batch: int, dtype: str, rounds: int) -> None:
    kernels = {"gpu": ["cudnn"], "tpu": ["splash"]}.get(platform(), [])
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}; batch {batch}, {dtype}")
    print(f"{'length':>6} {'algorithm':<10} {'ms':>9} {'temporary MiB':>14}")
    for length in lengths:
        rng = np.random.default_rng(0)
        shapes = [(batch, length, heads, CHANNELS) for heads in (HEADS, KV_HEADS, KV_HEADS)]
        arrays = [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]
        names = ["dense", "chunked", *kernels]
        programs = {name: gradient(name, Mask()).lower(*arrays, None).compile() for name in names}
        seconds = {name: [] for name in names}
        for _ in range(rounds + 1):  # of which the first is not counted
            for name, program in programs.items():
                began = time.perf_counter()
                jax.block_until_ready(program(*arrays, None))
                seconds[name].append(time.perf_counter() - began)
        chosen = choose("attention", "auto", Call(length, length, CHANNELS, dtype), platform())
        for name, program in programs.items():
            memory = program.memory_analysis().temp_size_in_bytes / 2**20
            mark = "  auto" if name == chosen else ""
            print(f"{length:>6} {name:<10} {1e3 * statistics.median(seconds[name][1:]):>9.2f} {memory:>14.1f}{mark}")


def compiles_for_tpu(topology: str) -> None:
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(topology, "tpu").devices
    print(f"{devices[0].device_kind}, jax {jax.__version__}; {HEADS} heads over {KV_HEADS}, batch 2; per chip")
    print(f"{'length':>6} {'channels':>9} {'dtype':<9} {'mask':<26} {'chips':>5} {'kernels':>7} {'temporary MiB':>14}")
    for data, tensor in ((1, 1), (2, 2)):
        mesh = make_mesh(MeshConfig(data, 1, tensor, 1, 1), devices[: data * tensor])
        for length, keys, values, dtype, mask, padded in COMPILED:
            with jax.set_mesh(mesh):

                def array(heads, channels, axes, mesh=mesh, length=length, dtype=dtype):
                    sharding = jax.NamedSharding(mesh, partition_spec(axes.split()))
                    return jax.ShapeDtypeStruct((2, length, heads, channels), dtype, sharding=sharding)

                arrays = (array(HEADS, keys, QUERIES), array(KV_HEADS, keys, KEYS), array(KV_HEADS, values, KEYS))
                placed = jax.NamedSharding(mesh, partition_spec(("batch", None)))
                real_BS = jax.ShapeDtypeStruct((2, length), bool, sharding=placed) if padded else None
                program = gradient("auto", mask).lower(*arrays, real_BS).compile()
            kind = f"{'causal' if mask.causal else 'all'}, {mask.window or 'no window'}{', padded' * padded}"
            kernels = program.as_text().count('custom_call_target="tpu_custom_call"')
            memory, sizes = program.memory_analysis().temp_size_in_bytes / 2**20, f"{keys}, {values}"
            print(f"{length:>6} {sizes:>9} {dtype:<9} {kind:<26} {data * tensor:>5} {kernels:>7} {memory:>14.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", default="256,1024,2048,4096")
    for name, default in (("batch", 1), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tpu", help="a topology such as v5e:2x2")
    asked = parser.parse_args()
    if asked.tpu:
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # else libtpu looks for the machine it would run on
        for name, value in (("ACCELERATOR_TYPE", "v5litepod-4"), ("WORKER_HOSTNAMES", "localhost"), ("WORKER_ID", "0")):
            os.environ.setdefault(f"TPU_{name}", value)
        jax.config.update("jax_platforms", "cpu")
        compiles_for_tpu(asked.tpu)
    else:
        configure()
        times([int(length) for length in asked.lengths.split(",")], asked.batch, asked.dtype, asked.rounds)


if __name__ == "__main__":
    main()
