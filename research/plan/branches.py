"""One run and cooldowns from it: loss against tokens for little more than the longest run costs (Hägele 2024)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from research.config import RunConfig, StartConfig, check, not_identity, run_name
from research.plan.experiment import Losses
from research.plan.scaling import scaled, with_seed


@dataclass(frozen=True)
class Branches:
    """At each size and seed one trunk, and a cooldown for every shorter length (arXiv:2405.18392, section 4).

    The trunk is the longest run itself: its rate is constant after the warm-up, and falls over the last
    `base.optimizer.decay_fraction` of its steps. A branch of fewer steps starts from the trunk's checkpoint where its
    own decay begins, and sees the trunk's batches. It has the numbers of a run that is trained from the start with the
    trunk's warm-up, to the bit, and costs its decay alone; `flops` and `tokens` of the runs table are the whole run's.

    base: the trunk at the base's size; its schedule is wsd. lengths: optimizer steps of each run, the last one the
    trunk's. sizes: (width, depth); empty: the base's.
    """

    name: str
    question: str = not_identity()
    base: RunConfig
    lengths: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...] = ()
    seeds: tuple[int, ...] = (0,)

    held_out_flops = None
    law = None
    searched = ()

    def __post_init__(self):
        schedule = self.base.optimizer.schedule
        check(
            schedule == "wsd", "base.optimizer.schedule", schedule, "must be wsd: branches cool down", "set it to wsd"
        )
        check(
            len(self.lengths) >= 2 and list(self.lengths) == sorted(set(self.lengths)),
            "lengths",
            self.lengths,
            "must be two or more numbers of steps that rise",
            "sort them",
        )
        check(len(self.seeds) > 0, "seeds", self.seeds, "must not be empty", "give at least one")
        warmup = self._steps_of("warmup_steps", self.lengths[-1])
        first = self._departure(self.lengths[0])
        check(
            first >= warmup,
            "lengths",
            self.lengths[0],
            f"would leave the trunk after {first} steps, before its warm-up of {warmup} ends",
            "raise it, or shorten the warm-up",
        )

    def runs(self) -> tuple[RunConfig, ...]:
        """The trunk of each size and seed; the branches follow, since they start from its checkpoints."""
        return tuple(with_seed(self._trunk(size), seed) for size in self.sizes or (None,) for seed in self.seeds)

    def following(self, losses: Losses) -> tuple[RunConfig, ...]:
        """The branches of the trunks that are done and did not diverge."""
        trunks = [trunk for trunk in self.runs() if math.isfinite(losses.get(trunk, math.inf))]
        branches = [self._branch(trunk, length) for trunk in trunks for length in self.lengths[:-1]]
        return tuple(branch for branch in branches if branch not in losses)

    def remarks(self, runs: Sequence[RunConfig]) -> tuple[str, ...]:
        """What follows the trunks."""
        lengths = ", ".join(f"{length:,}" for length in self.lengths[:-1])
        return (f"from each run, cooldowns follow that end after {lengths} steps, and cost their decay alone",)

    def held_out_run(self, optimum_params: float) -> None:
        """There is none."""
        return None

    def _trunk(self, size: tuple[int, int] | None) -> RunConfig:
        base = self.base
        return replace(
            base,
            experiment=self.name,
            model=base.model if size is None else scaled(base.model, *size),
            training=replace(base.training, steps=self.lengths[-1]),
            checkpoint=replace(base.checkpoint, also_at=tuple(map(self._departure, self.lengths[:-1]))),
        )

    def _branch(self, trunk: RunConfig, length: int) -> RunConfig:
        warmup = self._steps_of("warmup_steps", self.lengths[-1])
        return replace(
            trunk,
            optimizer=replace(trunk.optimizer, warmup_fraction=warmup / length),
            training=replace(trunk.training, steps=length),
            checkpoint=self.base.checkpoint,
            start=StartConfig(run_name(trunk), self._departure(length)),
        )

    def _departure(self, length: int) -> int:
        """Steps after which a run of `length` steps begins to decay."""
        return length - self._steps_of("decay_steps", length)

    def _steps_of(self, number: str, length: int) -> int:
        return int(self.base.optimizer.numbers(length)[number])
