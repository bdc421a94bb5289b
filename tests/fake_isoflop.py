"""The isoflop command on fakes, with no data to prepare: `python fake_isoflop.py TRAINER run FILE ...`."""

import sys

from research.command import cli, verbs


def pretend(trainer: str) -> None:
    """From here on in this process, `isoflop run` trains with the function of that name in fake_trainers.py."""
    verbs.TRAINER = f"fake_trainers:{trainer}"
    verbs._prepare = lambda configs, runs_dir, console: console.print("preparing data")


if __name__ == "__main__":
    pretend(sys.argv.pop(1))
    sys.exit(cli.main())
