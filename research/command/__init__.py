"""The `isoflop` command on experiments (plan, run, status, report): what is typed, what is done, what is shown.

`cli` reads the command line and imports nothing heavy; `verbs` do the work; `tables` and `progress` draw; `conclusion`
goes from runs to a law and a report. The verbs on anyone's table of runs are analysis/command.
"""
