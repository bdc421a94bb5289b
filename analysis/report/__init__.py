"""Reports: what a study, a comparison or a prediction found, as Markdown with its figures.

`study` and `comparison` write whole reports; `beyond_the_runs` words what lies outside the fitted runs; `captions`
names and describes the figures. Needs matplotlib, so that it is imported only where a report is written.
"""

from analysis.report.comparison import write_comparison
from analysis.report.study import law_section, write_study
