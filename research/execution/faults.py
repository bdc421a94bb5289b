"""Telling the machine's faults from a run's own: what the operating system refuses would be refused to any run."""

import errno
import os
from collections.abc import Iterator

from research.execution.events import Cause

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# Those whose words no message of a run's own would hold, by which they are known when a library passes on nothing else.
UNMISTAKABLE = (
    errno.EIO, errno.EFBIG, errno.EROFS, errno.ENOSYS, errno.ENOLCK, errno.ENOMEM, errno.EMFILE, errno.ENFILE,
    errno.ESTALE, errno.ENOTCONN, errno.EREMOTEIO, errno.ENODEV, errno.ENXIO,
)  # fmt: skip
OF_THE_MACHINE = (*UNMISTAKABLE, errno.EACCES, errno.EPERM, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.EHOSTDOWN)
NO_DEVICE = ("Unable to initialize backend", "no supported devices found")  # jax, where a driver is missing or broken


class MachineError(RuntimeError):
    """The machine cannot train, whatever the run."""


def machine_fault(error: BaseException) -> Cause | None:
    """DISK_FULL or MACHINE if a fault of the machine is behind an exception, else None.

    An import that fails is one: a shared library or a package is missing, and no run can do anything about it.
    """
    for behind in _chain(error):
        number = behind.errno if isinstance(behind, OSError) else None
        if number in DISK_FULL or _says(behind, DISK_FULL):
            return Cause.DISK_FULL
        if number in OF_THE_MACHINE or _says(behind, UNMISTAKABLE):
            return Cause.MACHINE
        if isinstance(behind, ImportError | MachineError) or any(words in str(behind) for words in NO_DEVICE):
            return Cause.MACHINE
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, what it was raised from, and so on."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _says(error: BaseException, numbers: tuple[int, ...]) -> bool:
    return any(os.strerror(number) in str(error) for number in numbers)
