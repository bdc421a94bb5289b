"""What a training step minimises, as the run's config names it.

An objective is a value (objectives/base.py). Another one is a file in objectives/, and one in
research/config/objectives/ with its name and its numbers.
"""

from collections.abc import Mapping

from research.config import LanguageModellingConfig, RunConfig
from research.training.objectives.base import MakeObjective, Objective
from research.training.objectives.language_modelling import language_modelling

OBJECTIVES: Mapping[type, MakeObjective] = {LanguageModellingConfig: language_modelling}


def objective_of(config: RunConfig) -> Objective:
    """The objective that `config.objective` names."""
    return OBJECTIVES[type(config.objective)](config)
