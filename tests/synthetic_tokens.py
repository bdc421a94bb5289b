"""Token files in memory, for tests of training that need no corpus."""

from pathlib import Path

import numpy as np

from research.config import (
    AttentionConfig,
    DataConfig,
    EvaluationConfig,
    MlpConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from research.data.batches import Examples, text_examples
from research.data.token_file import TokenFile

VOCAB = 264  # divides over every mesh of the tests


def in_memory(train: np.ndarray, validation: np.ndarray, vocab_size: int = VOCAB) -> TokenFile:
    """A token file of these ids that is nowhere on disk; every id stands for one byte."""
    manifest = {"vocab_size": vocab_size, "eos_id": 1, "tokenizer": {"kind": "bytes"}}
    return TokenFile(Path("memory"), manifest, train, validation, np.ones(vocab_size, np.uint16))


def synthetic_tokens(train: int = 20_000, validation: int = 500) -> dict[str, TokenFile]:
    """Counting upwards with random jumps, alike for both sources: a few dozen steps lower the loss."""
    rng = np.random.default_rng(0)
    size = train + 2 * validation
    jumps = rng.integers(0, 2, size) * rng.integers(0, VOCAB, size)
    stream = ((np.arange(size) + np.cumsum(jumps // 200)) % VOCAB).astype(np.uint16)
    prose, code = np.split(stream[train:], 2)
    return {"prose": in_memory(stream[:train], prose), "code": in_memory(stream[:train], code)}


def synthetic_examples(config: RunConfig) -> Examples:
    """The run's batches of those tokens."""
    return text_examples(config, synthetic_tokens())


def tiny_run(**training) -> RunConfig:
    """A run of a second: two layers of width 16 on the synthetic tokens."""
    return RunConfig(
        model=ModelConfig(vocab_size=VOCAB, width=16, depth=2, attention=AttentionConfig(2, 2, 8), mlp=MlpConfig(24)),
        data=DataConfig(vocab_size=VOCAB, train_tokens=20_000, validation_tokens=500),
        training=TrainingConfig(**{"steps": 20, "batch_size": 8, "sequence_length": 16, **training}),
        evaluation=EvaluationConfig(tokens=500, batch_size=8),
    )
