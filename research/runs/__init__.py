"""What training leaves on disk: run folders and their status, the runs table, plans, predictions, and where time went.

A run's status follows from its files alone, so nothing else may record it. The columns of the table are declared in
analysis/runs_table.py, statuses and phases in analysis/lifecycle.py; a new column is filled in `table`.
"""

from analysis.lifecycle import PHASES, Status
from research.runs.folder import ClaimError, LockError, RunFolder, check_locks, folder_of, one_at_a_time, open_run
from research.runs.plan_folder import NotWritableError, PlanFolder, make_folder
from research.runs.records import DamagedFileError
from research.runs.rounds import rounds_of
from research.runs.table import collect, setting_column
