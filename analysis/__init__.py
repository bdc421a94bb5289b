"""From a table of runs to a law with intervals, a checked extrapolation, figures and a report.

Nothing here imports `research`, flax or tensorflow: the runs table (`runs_table.py`) is the whole contract, and anyone
can bring a table of their own. Rooms, in the order data flows: laws, fit, intervals, compute, studies, figures, report,
command.
"""
