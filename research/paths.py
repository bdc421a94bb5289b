"""Where things live outside the repository: one setting, one place."""

import logging
import os
import tempfile
from pathlib import Path


class CacheFolderError(RuntimeError):
    """There is no place for the cache folder; the message names the setting."""


def cache_dir() -> Path:
    """The folder for data sets, token files, tokenizers and compiled programs: $ISOFLOP_CACHE or ~/.cache/isoflop.

    Raises CacheFolderError if there is neither that setting nor a home folder.
    """
    setting = os.environ.get("ISOFLOP_CACHE")
    try:
        return Path(setting).expanduser() if setting else Path.home() / ".cache" / "isoflop"
    except RuntimeError as error:  # pathlib's, where neither HOME nor the list of users names a home folder
        raise CacheFolderError(
            "ISOFLOP_CACHE is not set and there is no home folder. Fix: set ISOFLOP_CACHE to a folder for data."
        ) from error


def compiled_programs_dir() -> Path | None:
    """The folder for compiled programs; None, with a warning in the log, if nothing can be written to it.

    It only saves time, so a read-only home folder is no reason not to train.
    """
    folder = cache_dir() / "xla"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        logging.getLogger(__name__).warning(
            "%s: cannot be written to (%s), so every start compiles anew. Fix: set ISOFLOP_CACHE to a folder that can.",
            folder,
            error.strerror,
        )
        return None
    return folder
