"""Writing a file so that a reader, or the next start after a crash, never finds half of it."""

import os
import uuid
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """`content` at `path`, whole and on disk, or what was there before: a temporary file beside it, then renamed.

    Raises OSError for a folder that is absent, read-only or full; nothing is left behind then.
    """
    # Not by the process's number: two containers on one shared folder may have the same.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the new name, too, is on disk
    finally:
        os.close(directory)
