"""Figures of laws and runs, one function each, at printed size and readable in grey.

Every function returns a matplotlib Figure of one or two columns' width; `save` writes it as PNG and vector PDF.
"""

from analysis.drawing import STYLE, WIDTH_INCHES, Columns, FigureError, save, save_all
from analysis.figures.backtest import backtest_errors
from analysis.figures.coordinates import coordinate_changes
from analysis.figures.families import loss_by_family, measure_by_length
from analysis.figures.frontier import isoflop_valleys, loss_against_compute, optimal_allocation
from analysis.figures.law import loss_surface
from analysis.figures.residuals import prediction_against_measurement, residuals
from analysis.figures.runs import hyperparameter_bowls, learning_curve_collapse, optima_against_laws
from analysis.figures.samples import success_against_samples
from analysis.figures.uncertainty import bootstrap_cloud, exponents_compared, profile_likelihoods

__all__ = [
    "STYLE",
    "WIDTH_INCHES",
    "Columns",
    "FigureError",
    "backtest_errors",
    "bootstrap_cloud",
    "coordinate_changes",
    "exponents_compared",
    "hyperparameter_bowls",
    "isoflop_valleys",
    "learning_curve_collapse",
    "loss_against_compute",
    "loss_by_family",
    "loss_surface",
    "measure_by_length",
    "optima_against_laws",
    "optimal_allocation",
    "prediction_against_measurement",
    "profile_likelihoods",
    "residuals",
    "save",
    "save_all",
    "success_against_samples",
]
