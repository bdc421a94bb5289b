"""How long the command line takes: --help, and a fit of 240 published points with 1,000 resamples.

    ISOFLOP_SCALING_DATA=... python tests/benchmarks/shell_speed.py

Prints seconds of CPU and of wall clock per command, each in a process of its own. The cold fit starts with an empty
compilation cache and the warm one with what the cold one left. Goals on two cores: help under 0.8 s of CPU, a cold fit
under 6 s and a warm one under 3 s.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from analysis.datasets import load


def seconds(arguments: list[str], cache: str) -> tuple[float, float]:
    """CPU and wall seconds of one command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "research.command.cli", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "ISOFLOP_CACHE": cache})
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "epoch.csv"
        load("chinchilla_epoch").to_csv(table, index=False)
        fit = ["fit", str(table), "--bootstraps", "1000"]
        print(f"{'command':<12} {'CPU s':>7} {'wall s':>7}")
        for name, arguments in (
            ("--help", ["--help"]),
            ("fit --help", ["fit", "--help"]),
            ("cold fit", fit),
            ("warm fit", fit),
        ):
            print(f"{name:<12} {{:7.2f}} {{:7.2f}}".format(*seconds(arguments, folder)), flush=True)


if __name__ == "__main__":
    main()
