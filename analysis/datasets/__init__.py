"""Run tables that papers published, read into the schema of runs_table.py; none of them is in this repository.

`sources` says for each where it comes from, under which licence, and how to lay it out on disk; `readers` has one
function per table. A new table is one entry in the former and one function in the latter.
"""

from analysis.datasets.sources import SETTING, SOURCES, DatasetError, Source, load, source
