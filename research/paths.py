"""Where things live outside the repository: one setting, one place."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """The folder for data sets, token files, tokenizers and compiled programs: $ISOFLOP_CACHE or ~/.cache/isoflop."""
    return Path(os.environ.get("ISOFLOP_CACHE") or Path.home() / ".cache" / "isoflop").expanduser()
