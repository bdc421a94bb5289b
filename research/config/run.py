"""What a training run is: frozen dataclasses, validated when made.

A `RunConfig` decides every number a run produces. Fields declared with `not_identity` (mesh, checkpoints, logging, when
it is evaluated, by which of several equal algorithms) say where and how it executes; two runs that differ only there
are the same run and share a folder. Fingerprints are in `identity.py`: a default here is frozen once runs are named.
"""

from dataclasses import dataclass, field

from research.config.data import DataConfig
from research.config.examples import ExamplesConfig
from research.config.identity import not_identity
from research.config.model import ModelConfig
from research.config.objectives import LanguageModellingConfig, ObjectiveConfig
from research.config.optimizers import AdamWConfig, OptimizerConfig
from research.config.task import TaskConfig
from research.config.training import EvaluationConfig, TrainingConfig
from research.config.validation import check, check_range

FIRST_STAGE = "pre_training"  # of a run without a parent


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; -1 on one axis takes all devices that are left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    expert: int = 1
    sequence: int = 1

    def __post_init__(self):
        sizes = [getattr(self, name) for name in ("data", "fsdp", "tensor", "expert", "sequence")]
        check(
            all(size >= 1 or size == -1 for size in sizes) and sizes.count(-1) <= 1,
            "mesh",
            sizes,
            "sizes must be at least 1, and -1 on one axis at most",
            "set the other axes to 1",
        )


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run's state is saved. A run always saves when it is interrupted and when it ends."""

    every: int = 1000  # steps
    keep_last: int = 2  # so that training goes on from the one before if the newest is damaged
    keep_every: int | None = None  # steps whose multiples are never deleted
    also_at: tuple[int, ...] = ()  # saved after these steps, too, and never deleted: others may start from there

    def __post_init__(self):
        check_range(self, "checkpoint", "every keep_last keep_every", 1)
        check(min(self.also_at, default=1) >= 1, "checkpoint.also_at", self.also_at, "must be steps", "count from 1")
        check(
            self.keep_every is None or self.keep_every % self.every == 0,
            "checkpoint.keep_every",
            self.keep_every,
            f"must be none or a multiple of every = {self.every}",
            "choose a multiple",
        )

    def due(self, step: int) -> bool:
        """Whether a run saves its state after so many steps."""
        return step % self.every == 0 or step in self.also_at


@dataclass(frozen=True)
class StartConfig:
    """The state of another run of the experiment, from which this one goes on: its parameters, its optimizer's moments,
    and its step, so that this one's schedule and batches follow from there."""

    run: str  # its name
    step: int  # steps it had done

    def __post_init__(self):
        check_range(self, "start", "step", 1)


@dataclass(frozen=True)
class ParentConfig:
    """A run from whose parameters this one starts: fine-tuning, with a fresh optimizer and steps of its own.

    Heads that the parent lacks start fresh, from training.seed; the rest of the model must be the parent's. This run's
    counts of tokens and FLOPs are of its own steps.
    """

    fingerprint: str  # of the parent's config, which its folder must hold
    run: str = not_identity()  # a run of the same experiment by its name, or the path of a run folder elsewhere
    step: int | None = None  # of which of its checkpoints; none: the last, when all its steps are done
    stage: str = "fine_tuning"  # what training this run is a stage of, for the runs table

    def __post_init__(self):
        check_range(self, "parent", "step", 1)
        rule = f"must be a plain identifier other than {FIRST_STAGE}, that of runs without a parent"
        check(self.stage.isidentifier() and self.stage != FIRST_STAGE, "parent.stage", self.stage, rule, "use a_z0_9")


@dataclass(frozen=True)
class LoggingConfig:
    """Metrics go to metrics.jsonl, one object per step; TensorBoard mirrors them."""

    every: int = 10  # steps between flushes to disk; every step is written
    tensorboard: bool = False
    noise_scale: bool = False  # the gradient noise scale's two parts, in every step (research/training/noise_scale.py)

    def __post_init__(self):
        check_range(self, "logging", "every", 1)


@dataclass(frozen=True)
class RunConfig:
    """One training run. `experiment`, `family` and `budget_flops` become columns of the runs table as they are."""

    experiment: str = "unnamed"
    family: str = "transformer"
    budget_flops: float | None = None  # the compute budget this run was planned for
    held_out: bool = not_identity(False)  # kept away from every fit
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    task: TaskConfig | None = None  # in place of the text of `data`
    examples: ExamplesConfig | None = None  # in place of it, too, tokenized as it would be
    optimizer: OptimizerConfig = field(default_factory=AdamWConfig)
    objective: ObjectiveConfig = field(default_factory=LanguageModellingConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    start: StartConfig | None = None  # none: from the initialisation of training.seed
    parent: ParentConfig | None = None  # the run whose parameters are fine-tuned, in place of the initialisation
    mesh: MeshConfig = not_identity(factory=MeshConfig)
    checkpoint: CheckpointConfig = not_identity(factory=CheckpointConfig)
    logging: LoggingConfig = not_identity(factory=LoggingConfig)

    @property
    def unused(self) -> frozenset[str]:
        """Fields that nothing reads: the text, where a task takes its place, or examples in bytes."""
        return frozenset() if self.needs_token_files else frozenset({"data"})

    @property
    def reads_text(self) -> bool:
        """Whether it is trained on the documents of `data`."""
        return self.task is None and self.examples is None

    @property
    def needs_token_files(self) -> bool:
        """Whether the token files of `data` must be there: to be read, or for the tokenizer that lies with them."""
        return self.reads_text or (self.examples is not None and self.data.tokenizer != "bytes")

    @property
    def first_step(self) -> int:
        """Steps that another run has done, from whose state it starts."""
        return 0 if self.start is None else self.start.step

    @property
    def own_steps(self) -> int:
        """Steps that it takes itself: all, unless it starts from another run."""
        return self.training.steps - self.first_step

    @property
    def stage(self) -> str:
        """What this run is a stage of training of."""
        return FIRST_STAGE if self.parent is None else self.parent.stage

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the held-out domains."""
        if self.examples is not None:
            return ("examples",)
        if self.task is None:
            return tuple(source.name for source in self.data.sources)
        return tuple(f"{self.task.name}_{length}" for length in self.task.evaluated)

    def __post_init__(self):
        if self.examples is not None:
            self._check_examples()
        elif self.task is None:
            self._check_text()
        else:
            self._check_task()
        self._check_lengths()
        self.objective.check_fits(self.model)
        check(
            self.objective.labels(self.model) is None or self.examples is not None,
            "objective.name",
            self.objective.name,
            "reads a label of each row, which only examples have",
            "set `examples` to a file with labels",
        )
        check(
            self.training.z_loss == 0 or "vocabulary" in self.objective.heads,
            "training.z_loss",
            self.training.z_loss,
            f"is of next-token logits, which objective {self.objective.name!r} does not train",
            "set it to 0",
        )
        check(
            self.first_step < self.training.steps,
            "start.step",
            self.first_step,
            f"must be less than training.steps = {self.training.steps}, which counts from the start of that run",
            "raise training.steps",
        )
        check(
            self.start is None or self.parent is None,
            "start.run",
            self.start and self.start.run,
            "goes on with another run's optimizer, and `parent` begins with a fresh one",
            "set one of them to none",
        )
        for model in (self.model, self.model.encoder):
            if model is not None and "moe" in model.sections:
                model.moe.check_microbatches(self.training.microbatches)
        check(
            not self.logging.noise_scale or self.training.microbatches > 1,
            "logging.noise_scale",
            self.logging.noise_scale,
            "compares the gradients of a batch's parts, and training.microbatches is 1",
            "set training.microbatches to 2 or more, or leave it false",
        )

    def _check_lengths(self) -> None:
        read = [(self.model, "training.sequence_length", self.training.sequence_length)]
        if self.model.encoder is not None:
            read.append((self.model.encoder, "model.source_length", self.model.source_length))
        for model, field_name, length in read:
            check(
                model.max_positions is None or length <= model.max_positions,
                "model.max_positions",
                model.max_positions,
                f"must be at least {field_name} = {length}, since every position of a sequence has a row of the table",
                f"use {length} or more, or none for a model without the table",
            )
            for name in model.sections:
                getattr(model, name).check_length(length, field_name)

    def _check_stream(self) -> None:
        """Of text and examples alike."""
        check(
            self.model.encoder is None,
            "model.pattern",
            self.model.pattern,
            "an encoder-decoder needs pairs of source and target, and text is one stream for a decoder-only model",
            "set task.name=copy (or reverse), or write the decoder's layers alone",
        )
        check(
            self.model.vocab_size == self.data.vocab_size,
            "model.vocab_size",
            self.model.vocab_size,
            f"must equal data.vocab_size = {self.data.vocab_size}",
            "set both to the same number",
        )

    def _check_examples(self) -> None:
        self._check_stream()
        check(
            self.task is None,
            "task",
            self.task,
            "must be none where `examples` is set, since both take the place of the text",
            "set one of them to none",
        )

    def _check_text(self) -> None:
        self._check_stream()
        allowed = self.training.max_epochs * self.data.train_tokens
        epochs = self.training.tokens / self.data.train_tokens
        check(
            self.training.tokens <= allowed,
            "training.steps",
            self.training.steps,
            f"asks for {self.training.tokens:,} tokens, which is {epochs:.2f} epochs of the {self.data.train_tokens:,} "
            f"in data.train_tokens, more than training.max_epochs = {self.training.max_epochs:g}",
            "raise data.train_tokens, or allow repetition with a larger training.max_epochs",
        )

    def _check_task(self) -> None:
        encoder = self.model.encoder
        check(
            encoder is None or self.task.name != "recall",
            "task.name",
            self.task.name,
            "has no source apart from its target, which an encoder-decoder needs",
            "use copy or reverse, or a decoder-only pattern",
        )
        check(
            self.model.vocab_size >= self.task.vocab_size,
            "model.vocab_size",
            self.model.vocab_size,
            f"must be at least the {self.task.vocab_size} ids of the task",
            "raise it",
        )
        length = self.task.sequence_length(encoder is not None)
        check(
            self.training.sequence_length == length,
            "training.sequence_length",
            self.training.sequence_length,
            f"must be {length}, what the longest example of task {self.task.name!r} takes",
            "set it to that",
        )
        check(
            encoder is None or self.model.source_length == self.task.lengths[1],
            "model.source_length",
            self.model.source_length,
            f"must be the task's longest source, {self.task.lengths[1]}",
            "set it to that",
        )
