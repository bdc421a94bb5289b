"""What a table of runs says, whoever wrote it: its file, numbers, words, units and which rows are one run.

`runs_table` above it has the schema, and is what others read tables through.
"""
