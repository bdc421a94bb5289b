"""Objectives, one file each: its name and its numbers. What they mean is in research/training/objectives/."""

from research.config.objectives.language_modelling import LanguageModellingConfig

# What `objective` may be; the first is meant where nothing names it.
ObjectiveConfig = LanguageModellingConfig
