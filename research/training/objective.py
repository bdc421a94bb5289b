"""What a training step minimises, as the run's config names it.

An objective is a value (objectives/base.py). Another one is a file in objectives/, and one in
research/config/objectives/ with its name and its numbers.
"""

from collections.abc import Mapping

from research.config import ClassificationConfig, LanguageModellingConfig, RunConfig, VerifierConfig
from research.training.objectives.base import MakeObjective, Objective
from research.training.objectives.classification import classification
from research.training.objectives.language_modelling import language_modelling
from research.training.objectives.verifier import verifier

OBJECTIVES: Mapping[type, MakeObjective] = {
    LanguageModellingConfig: language_modelling,
    ClassificationConfig: classification,
    VerifierConfig: verifier,
}


def objective_of(config: RunConfig) -> Objective:
    """The objective that `config.objective` names."""
    return OBJECTIVES[type(config.objective)](config)
