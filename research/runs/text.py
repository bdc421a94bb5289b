"""Which text a run was begun on: recorded in its folder at the first start, compared at every later one."""

import json
from collections.abc import Mapping
from pathlib import Path

from analysis.files import write_atomically
from research.data.errors import DataError
from research.runs.folder import RunFolder


def record_text(folder: RunFolder, digests: Mapping[str, str]) -> None:
    """Write down the digests (`research.data.batches.text_digests`) of a run that has none; else `check_text`."""
    if _path(folder).exists():
        check_text(folder, digests)
    else:
        write_atomically(_path(folder), (json.dumps(dict(digests), indent=2) + "\n").encode())


def check_text(folder: RunFolder, digests: Mapping[str, str]) -> None:
    """Raise DataError where a run that has begun was trained on other text than these digests'."""
    path = _path(folder)
    if not path.exists():
        return
    try:
        recorded = json.loads(path.read_text())
        names = sorted(recorded.keys() | digests.keys())
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}). Fix: delete {folder.path} and train the run again.") from error
    for name in names:
        if recorded.get(name) != digests.get(name):
            raise DataError(
                f"{folder.path}: was begun on other text: {name} had sha256 {recorded.get(name)}, and the token file "
                f"here has {digests.get(name)}. Fix: copy the token file that the run was begun with to this machine, "
                f"or move {folder.path} away to train the run anew."
            )


def _path(folder: RunFolder) -> Path:
    return folder.path / "text.json"
