"""How long a run trains, on what batches, and what it is measured on."""

from dataclasses import dataclass
from typing import Literal

from research.config.identity import not_identity
from research.config.validation import check, check_choices, check_positive, check_range


@dataclass(frozen=True)
class TrainingConfig:
    """How long and on what batches."""

    steps: int = 100
    batch_size: int = 16  # sequences in the global batch
    sequence_length: int = 128
    microbatches: int = 1  # gradient accumulation: in float32 equal to one large batch
    accumulation_dtype: Literal["float32", "bfloat16"] = "float32"  # of gradients summed over microbatches
    z_loss: float = 0.0  # weight of mean(logsumexp^2) (PaLM section 5)
    max_epochs: float = not_identity(
        1.0
    )  # passes over the token file that are allowed; above 1 repeats data on purpose
    seed: int = 0  # initialisation and data order

    def __post_init__(self):
        check_choices(self, "training")
        check_range(self, "training", "steps batch_size sequence_length microbatches", 1)
        check_range(self, "training", "z_loss", 0)
        check_positive(self, "training", "max_epochs")
        check_range(self, "training", "seed", 0, 2**31 - 1)
        check(
            self.batch_size % self.microbatches == 0,
            "training.microbatches",
            self.microbatches,
            f"must divide batch_size = {self.batch_size}",
            "choose a divisor",
        )
        check(
            self.accumulation_dtype == "float32" or self.microbatches > 1,
            "training.accumulation_dtype",
            self.accumulation_dtype,
            "is of sums over microbatches, and microbatches is 1",
            "leave it at float32, or raise microbatches",
        )

    @property
    def unused(self) -> frozenset[str]:
        """Fields that decide no number: microbatches, unless their sums are rounded to less than float32."""
        return frozenset({"microbatches"} if self.accumulation_dtype == "float32" else ())

    @property
    def batch_tokens(self) -> int:
        """Tokens predicted per optimizer step."""
        return self.batch_size * self.sequence_length

    @property
    def tokens(self) -> int:
        """Tokens predicted over the whole run."""
        return self.steps * self.batch_tokens


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out loss per domain; always at the last step, and every `every` steps when that is set."""

    every: int | None = not_identity(None)
    tokens: int = 131_072  # per domain, from the start of its validation file
    batch_size: int = not_identity(32)
    seed: int = 0  # of a synthetic task's held-out examples

    def __post_init__(self):
        check_range(self, "evaluation", "seed", 0)
        check_range(self, "evaluation", "every tokens batch_size", 1)
