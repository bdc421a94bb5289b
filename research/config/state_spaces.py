"""The sections of ModelConfig that the linear state spaces read: S4, S4D and H3."""

from dataclasses import dataclass
from typing import Any, Literal

from research.config.section import Section
from research.config.validation import check, check_choices, check_positive, check_range

Eigenvalues = Literal["legs", "lin", "inv", "real"]  # that a state space starts from (Gu 2022, S4D, section 4)


@dataclass(frozen=True)
class S4Config(Section):
    """State spaces of one channel each: S4 (Gu 2022), diagonal plus low rank, or S4D (Gu 2022b), diagonal.

    `state_size` real numbers hold a channel's state, as complex ones of which every conjugate is left out. The dplr
    kernel has a length, which S4's parameters belong to: no sequence may be longer.
    """

    kernel: Literal["dplr", "diagonal"] = "dplr"
    state_size: int = 64
    initialisation: Eigenvalues = "legs"
    discretisation: Literal["bilinear", "zoh"] = "bilinear"
    dt_min: float = 1e-3  # steps start log-uniform between these
    dt_max: float = 1e-1
    kernel_length: int = 1024  # dplr only

    def __post_init__(self):
        check_choices(self, "model.s4")
        check_range(self, "model.s4", "kernel_length", 1)
        _check_state_space(self, "model.s4")
        for name, value in (("initialisation", "legs"), ("discretisation", "bilinear")):
            check(
                self.kernel == "diagonal" or getattr(self, name) == value,
                f"model.s4.{name}",
                getattr(self, name),
                f"must be {value!r} with the dplr kernel",
                "choose it, or kernel = 'diagonal'",
            )

    def check_length(self, length: int, field: str) -> None:
        """Raise ConfigError if the kernel is shorter than a sequence."""
        check(
            self.kernel == "diagonal" or length <= self.kernel_length,
            "model.s4.kernel_length",
            self.kernel_length,
            f"must be at least {field} = {length}",
            "raise it, or choose kernel = 'diagonal', which has no length",
        )


@dataclass(frozen=True)
class H3Config(Section):
    """H3 (Fu 2023): a shift and a diagonal state space between multiplicative gates, in heads of `head_dim` channels.

    The number of heads follows from the width.
    """

    head_dim: int = 1
    state_size: int = 64  # of both: taps of the shift, real numbers of each diagonal state
    initialisation: Eigenvalues = "lin"
    discretisation: Literal["bilinear", "zoh"] = "bilinear"
    dt_min: float = 1e-3  # steps start log-uniform between these
    dt_max: float = 1e-1

    def __post_init__(self):
        check_choices(self, "model.h3")
        check_range(self, "model.h3", "head_dim", 1)
        _check_state_space(self, "model.h3")

    def check_fits(self, model: Any) -> None:
        """Raise ConfigError unless the width is whole heads."""
        check(
            model.width % self.head_dim == 0,
            "model.h3.head_dim",
            self.head_dim,
            f"must divide model.width = {model.width}",
            "choose a divisor",
        )


def _check_state_space(config: S4Config | H3Config, section: str) -> None:
    check(
        config.state_size >= 2 and config.state_size % 2 == 0,
        f"{section}.state_size",
        config.state_size,
        "must be even, since complex states come in conjugate pairs",
        "round it up to an even number",
    )
    check_positive(config, section, "dt_min")
    check(
        config.dt_min <= config.dt_max,
        f"{section}.dt_max",
        config.dt_max,
        f"must be at least dt_min = {config.dt_min}",
        "raise it",
    )
