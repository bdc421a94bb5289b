"""Batches as pure functions of the step: no iterator state, O(1) resume, the same batches for any number of hosts.

The training stream of n tokens is cut into (n - 1) // L windows of L inputs, whose targets are the inputs one token
later. Step after step walks through a pseudo-random permutation of the windows; when it is used up the next epoch
begins, with another permutation, at the very next row. Never imports tensorflow.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from research.config import RunConfig, check
from research.data.permutation import epoch_key, permute
from research.data.token_file import TokenFile


@dataclass(frozen=True)
class Validation:
    """A domain's held-out examples: batches of one shape, how many tokens they predict, the bytes of text those are.

    text_bytes is None where the tokens stand for no text.
    """

    batches: tuple[dict[str, np.ndarray], ...]
    tokens: int
    text_bytes: int | None


class Examples(NamedTuple):
    """Where a run's examples come from: a token file, or a synthetic task.

    batch(step, process_index, process_count) is a pure function; validation(domain) are held-out examples; domains maps
    each to its share in the mean.
    """

    batch: Callable[[int, int, int], dict[str, np.ndarray]]
    validation: Callable[[str], Validation]
    domains: Mapping[str, float]


def text_examples(config: RunConfig, tokens: TokenFile) -> Examples:
    """The windows of a token file, for the run's batches. Raises ConfigError for a file of another vocabulary."""
    tokens.check_vocabulary(config.model.vocab_size)
    training, evaluation = config.training, config.evaluation

    def of_step(step: int, process_index: int, process_count: int) -> dict[str, np.ndarray]:
        return batch(
            tokens,
            step,
            batch_size=training.batch_size,
            sequence_length=training.sequence_length,
            seed=training.seed,
            process_index=process_index,
            process_count=process_count,
        )

    def of_domain(domain: str) -> Validation:
        return validation_batches(
            tokens,
            domain,
            batch_size=evaluation.batch_size,
            sequence_length=training.sequence_length,
            max_tokens=evaluation.tokens,
        )

    return Examples(of_step, of_domain, {source.name: source.rate for source in config.data.sources})


def windows(tokens: TokenFile, sequence_length: int) -> int:
    """Training windows in the file: one epoch. The tokens of an epoch are windows * sequence_length."""
    return max(0, len(tokens.train) - 1) // sequence_length


def batch(tokens: TokenFile, step: int, *, batch_size: int, sequence_length: int, seed: int, process_index: int = 0,
          process_count: int = 1) -> dict[str, np.ndarray]:  # fmt: skip
    """The batch of a step: {"inputs", "targets": int32, "weights": float32}, each (batch_size / process_count, L).

    Process i has rows [i * rows, (i + 1) * rows) of the global batch, which depends on (seed, step, batch_size, L)
    alone. Counting rows over all steps, row r belongs to epoch r // windows, and every window occurs once in each
    epoch. Raises ConfigError for a batch larger than an epoch, or processes that do not divide it.
    """
    available = windows(tokens, sequence_length)
    check(step >= 0, "step", step, "must not be negative", "count from 0")
    check(
        1 <= batch_size <= available,
        "training.batch_size",
        batch_size,
        f"must be from 1 to the {available:,} windows of {sequence_length} tokens in {tokens.folder}",
        "lower it or training.sequence_length, or raise data.train_tokens",
    )
    rows = _rows_per_process(batch_size, process_index, process_count, "training.batch_size")
    example = step * batch_size + process_index * rows + np.arange(rows)
    order = permute(example % available, available, epoch_key(seed, example // available))
    stream_BL = np.asarray(tokens.train)[order[:, None] * sequence_length + np.arange(sequence_length + 1)]
    stream_BL = stream_BL.astype(np.int32)
    return {"inputs": stream_BL[:, :-1], "targets": stream_BL[:, 1:],
            "weights": np.ones((rows, sequence_length), np.float32)}  # fmt: skip


def validation_batches(tokens: TokenFile, domain: str, *, batch_size: int, sequence_length: int,
                       max_tokens: int | None = None, process_index: int = 0,
                       process_count: int = 1) -> Validation:  # fmt: skip
    """The first `max_tokens` held-out tokens of a domain (all of them if none), each a target exactly once.

    The end-of-document id stands before the first token as its input. What is missing in the last batch is padded and
    has weight 0, so that every batch is (batch_size / process_count, L). `tokens` and `text_bytes` count the global
    batches. Raises ConfigError for a domain that is not there, or processes that do not divide the batch.
    """
    known = list(tokens.validation)
    check(domain in known, "domain", domain, "is not in this token file", f"choose from {known}")
    check(batch_size >= 1, "evaluation.batch_size", batch_size, "must be at least 1", "raise it")
    rows = _rows_per_process(batch_size, process_index, process_count, "evaluation.batch_size")
    targets = np.asarray(tokens.validation[domain][:max_tokens])
    inputs = np.concatenate([[tokens.end_id], targets[:-1]])
    batches = -(-targets.size // (batch_size * sequence_length))

    def laid_out(values: np.ndarray, dtype: type) -> np.ndarray:
        padded = np.zeros(batches * batch_size * sequence_length, dtype)
        padded[: values.size] = values
        own = padded.reshape(batches, process_count, rows, sequence_length)
        return own[:, process_index]

    columns = {"inputs": laid_out(inputs, np.int32), "targets": laid_out(targets, np.int32),
               "weights": laid_out(np.ones(targets.size), np.float32)}  # fmt: skip
    made = tuple({name: column[i] for name, column in columns.items()} for i in range(batches))
    return Validation(made, targets.size, int(tokens.token_bytes[targets].sum(dtype=np.int64)))


def _rows_per_process(batch_size: int, process_index: int, process_count: int, field: str) -> int:
    check(
        process_count >= 1 and batch_size % process_count == 0,
        field,
        batch_size,
        f"must be a multiple of the {process_count} processes",
        "choose a multiple",
    )
    check(
        0 <= process_index < process_count,
        "process_index",
        process_index,
        f"must be from 0 to {process_count - 1}",
        "pass jax.process_index()",
    )
    return batch_size // process_count
