"""Questions asked of a table of runs, each one file: a law with intervals, optima, predictions, back-tests,
comparisons.

`Study` is a fitted law with all that later questions need; `fit_table` makes one. A new question is a file that takes a
Study or a table and returns a frozen dataclass, which report/ and figures/ can show.
"""

from analysis.studies.allocation import (
    Departure,
    Lifetime,
    Optimum,
    cost_of_departing,
    frontier_exponents,
    lifetime_optimum,
    optimum,
)
from analysis.studies.backtesting import Backtest, Cut, backtest, backtest_of
from analysis.studies.comparison import MEASURES_BY_LENGTH, Cell, Comparison, Family, by_length, compare
from analysis.studies.critical_batch import CriticalBatch, CriticalBatches, Reached, critical_batches, points_table
from analysis.studies.curve_collapse import Collapse, collapse
from analysis.studies.downstream import fit_two_steps, predict_task, smoothed
from analysis.studies.hyperparameters import Bowl, cells_of, excess_loss, fit_bowls, optima_table, sweep_rows
from analysis.studies.law_ranking import Ranking, rank_laws
from analysis.studies.planned_design import PlannedDesign, judge, prior_of
from analysis.studies.prediction import Prediction, PredictionError, Score, predict, score
from analysis.studies.reach import reach
from analysis.studies.recipe_scores import Condition, RecipeScores, Recommended, recipe_scores, swept_cells
from analysis.studies.residual_checks import (
    Explained,
    LackOfFit,
    Outlier,
    OutlyingRun,
    ResidualChecks,
    residual_checks,
)
from analysis.studies.sample_laws import CurveLaws
from analysis.studies.sample_worth import Match, SampleStudy, SizeFactor, Worth, sample_study
from analysis.studies.samples import WAYS, Answered, Chosen, Curve, sample_curves, success_table
from analysis.studies.schedule_areas import schedule_areas
from analysis.studies.study import Study, fit_table, fitted_rows, planning_law
from analysis.studies.sweep_laws import SweepLaws, sweep_laws
from analysis.studies.task_forecasts import TaskForecasts, forecast_tasks
