"""The one error of data on disk."""


class DataError(ValueError):
    """What is on disk, or the file system, is not what it should be; the message names the file and the fix."""
