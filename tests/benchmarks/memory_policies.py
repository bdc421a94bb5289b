"""What a training step holds on one chip under each policy of rematerialisation, and with moments and sums in bfloat16.

    .venv/bin/python tests/benchmarks/memory_policies.py [--preset NAME] [--batch 32] [--length 2048]

Compiled ahead of time for four TPU v5e chips, the batch split over them, as tests/benchmarks/ahead_of_time.py does,
which also says what that proves and needs. Products are over the closed form (executed_flops), attention's kernel
not among them.
"""

import argparse
import importlib.util

from ahead_of_time import Row, cells  # before jax is imported: it says for what

from research.config import AdamWConfig, MeshConfig

SHORT_MOMENT = AdamWConfig(first_moment_dtype="bfloat16")
CASES = {
    "none": {"remat": "none"},
    "dots": {"remat": "dots"},
    "attention": {"remat": "attention"},
    "full": {"remat": "full"},
    "attention, first moment in bfloat16": {"remat": "attention", "optimizer": SHORT_MOMENT},
    "attention, 2 microbatches": {"remat": "attention", "microbatches": 2},
    "attention, 2 microbatches summed in bfloat16": {
        "remat": "attention",
        "microbatches": 2,
        "accumulation_dtype": "bfloat16",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="pythia-410m")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=2048)
    asked = parser.parse_args()
    if importlib.util.find_spec("libtpu") is None:
        print('skipped: no libtpu to compile with (pip install ".[tpu]")')
        return
    row = Row(asked.preset, "v5e:2x2", MeshConfig(data=4), asked.batch, asked.length)
    print(f"{asked.preset}, {asked.batch} x {asked.length} tokens on four chips (v5e)")
    print("| what is kept | peak GiB | arguments GiB | products | seconds |", "|---|---|---|---|---|", sep="\n")
    for name, changes in CASES.items():
        peak, arguments, products, *_, seconds = cells(row._replace(**changes))
        print(f"| {name} | {peak} | {arguments} | {products} | {seconds} |", flush=True)


if __name__ == "__main__":
    main()
