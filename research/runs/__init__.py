"""What training leaves on disk: run folders and their status, the runs table, predictions, and where time went.
went.

A run's status follows from its files alone, so nothing else may record it. The columns of the table are declared in
analysis/runs_table.py; a new one is filled in `table`.
"""

from research.runs.folder import (
    ClaimError,
    LockError,
    RunFolder,
    Status,
    check_locks,
    folder_of,
    one_at_a_time,
    open_run,
    write_atomically,
)
from research.runs.table import collect
