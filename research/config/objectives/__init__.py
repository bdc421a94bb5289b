"""Objectives, one file each: its name and its numbers. What they mean is in research/training/objectives/."""

from research.config.objectives.classification import ClassificationConfig
from research.config.objectives.language_modelling import LanguageModellingConfig
from research.config.objectives.verifier import VerifierConfig

# What `objective` may be; the first is meant where nothing names it.
ObjectiveConfig = LanguageModellingConfig | ClassificationConfig | VerifierConfig
