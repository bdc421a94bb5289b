"""The `isoflop` command: finds this project's own packages, or says which file hides them, and hands over to them.

A module of its own, beside the packages, because `research` itself may be what is hidden.
"""

import importlib.util
import sys
from pathlib import Path

PACKAGES = ("analysis", "research")


def main() -> int:
    """Run the command line; returns the exit code."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin or next(iter(spec.submodule_search_locations))) if spec else None
        if found is None or Path(__file__).resolve().parent not in found.resolve().parents:
            hidden = f"{found} hides it" if found else "it is not there"
            fix = "Fix: run isoflop in another folder or take that one out of PYTHONPATH, or install isoflop again."
            print(f"isoflop needs its own package {name!r}, and {hidden}. {fix}", file=sys.stderr)
            return 2
    from research.command.cli import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
