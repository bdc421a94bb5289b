"""The isoflop command on fakes, with no data to prepare: `python fake_isoflop.py TRAINER run FILE ...`."""

import sys
from functools import partial

from research.command import cli, verbs
from research.execution import local

REAL_ENGINE = local.LocalEngine


def pretend(trainer: str) -> None:
    """From here on in this process, `isoflop run` trains with the function of that name in fake_trainers.py."""
    local.LocalEngine = partial(REAL_ENGINE, trainer=f"fake_trainers:{trainer}")
    verbs._prepare = lambda configs, runs_dir, console: console.print("preparing data")


if __name__ == "__main__":
    pretend(sys.argv.pop(1))
    sys.exit(cli.main())
