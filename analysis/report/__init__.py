"""Reports: what a study, a comparison or a prediction found, as one document for files and terminals alike.

`document` has the values a report is made of; `markdown` and `terminal` are its writers, and a new medium is a new
writer. `study` and `comparison` make the documents, of sections in `fitted_law`, `beyond_the_runs`, `time_account`.
`captions` and `files`, which need matplotlib, draw the figures and write the files; import them from there.
"""

from analysis.report.beyond_the_runs import backtest_section, held_out_section
from analysis.report.comparison import cells_section, comparison_document
from analysis.report.critical_batch import critical_batch_sections
from analysis.report.law_ranking import ranking_sections
from analysis.report.laws import law_in_full, laws_section
from analysis.report.planned_design import planned_design_section
from analysis.report.recipe_scores import recipe_sections
from analysis.report.samples import sample_document, sample_sections
from analysis.report.study import Questions, StudyReport, study_report
from analysis.report.sweep_laws import best_runs_section, optima_section, sweep_document, sweep_sections
from analysis.report.table_notes import left_out_section, notes_block
from analysis.report.task_forecasts import forecast_sections
from analysis.report.terminal import show
from analysis.report.time_account import TimeAccount, time_account, time_section
