"""One law fitted to one table: which rows count, what is minimised, and the search for its lowest minimum.

`fit(law, table)` is the whole of it for a caller. `newton`, `lanes` and `batched` solve, `starts` and `search` decide
where from; an objective is one entry of `objectives.OBJECTIVES`. `residual_tests` has no law: it looks at what is left
over.
"""

from analysis.fit.fitting import Fit, fit, fit_points
from analysis.fit.objectives import HUBER, HUBER_LIKELIHOOD, LEAST_SQUARES, OBJECTIVES, Objective
from analysis.fit.points import (
    FitError,
    LeftOut,
    Points,
    by_reason,
    left_out,
    missing_reason,
    reasons_left_out,
    select,
    those_left_out,
)
from analysis.fit.residual_tests import Outliers, outliers, outliers_by_run, pure_error
