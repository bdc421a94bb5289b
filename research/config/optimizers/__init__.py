"""Optimizers, one file each: its numbers, and the transformation that follows from them."""

from research.config.optimizers.adafactor import AdafactorConfig
from research.config.optimizers.adamw import AdamWConfig
from research.config.optimizers.base import Axes, Optimizer
from research.config.optimizers.lion import LionConfig
from research.config.optimizers.muon import MuonConfig
from research.config.optimizers.muonh import MuonHConfig
from research.config.optimizers.schedule_free import ScheduleFreeConfig
from research.config.optimizers.sgd import SgdConfig
from research.config.optimizers.soap import SoapConfig

# What `optimizer` may be; the first is meant where nothing names it.
OptimizerConfig = (
    AdamWConfig | AdafactorConfig | LionConfig | MuonConfig | MuonHConfig | ScheduleFreeConfig | SgdConfig | SoapConfig
)
