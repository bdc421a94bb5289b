"""Every architecture on every kind of mesh: is the first step right, and does each device do its share of the work?

    .venv/bin/python tests/benchmarks/meshes.py [--architectures NAME ...] [--meshes NAME ...]

On virtual CPU devices, as many as a mesh needs, one table: width 64, 2 layers, 16 sequences of 64 tokens, float32. A
cell is what a device executes over its share of what one device alone does, matrix products / transcendental functions
or transforms, then the MiB of its collectives in one step. It is set in bold and explained below the table unless the
loss is within 1e-6 of one device's, every entry of every gradient within 1e-5 of its leaf's largest, the shares below
1.1 and 1.25 (of convolutions by transform, over the closed form of a device's transforms), and XLA replicated no array
for want of a way between shardings (tests/mesh_cells.py). "refused" is our own error, which says why; any other is a
fault. Nothing here says how fast a mesh is.
"""

import argparse
import os
import sys
from pathlib import Path

# Small programs that compile quickly and are run once; the partitioner, whose work this is about, is the same.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 "
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "1"  # with the partitioner's warnings

sys.path.insert(0, str(Path(__file__).parents[1]))
from mesh_cells import ARCHITECTURES, MESHES, Cell, outcome


def written(found: Cell | str) -> str:
    """A cell of the table."""
    if isinstance(found, str):
        kind = found.partition(":")[0]
        return kind if kind == "refused" else f"**{kind}**"
    unknown = "?" if found.unknown_loops else ""
    text = f"{found.products:.2f}{unknown}/{found.others:.2f}/{found.traffic:.1f}"
    return f"**{text}**" if found.faults else text


def explained(found: Cell | str) -> str:
    """What stands below the table of a cell that does not work, or empty."""
    return found if isinstance(found, str) else "; ".join(found.faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--architectures", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES), metavar="NAME"
    )
    parser.add_argument("--meshes", nargs="+", choices=MESHES, default=list(MESHES), metavar="NAME")
    asked = parser.parse_args()
    table, below = [], []
    for architecture in asked.architectures:
        row = []
        for mesh in asked.meshes:
            found = outcome(architecture, mesh)
            row.append(written(found))
            if explained(found):
                below.append(f"- {architecture}, {mesh}: {explained(found)}")
            print(f"{architecture}, {mesh}: {row[-1]} {explained(found)}", file=sys.stderr, flush=True)
        table.append(f"| {architecture} | {' | '.join(row)} |")
    print(f"| | {' | '.join(asked.meshes)} |", "|---" * (len(asked.meshes) + 1) + "|", *table, "", *below, sep="\n")


if __name__ == "__main__":
    main()
