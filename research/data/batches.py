"""Batches as pure functions of the step: no iterator state, O(1) resume, the same batches for any number of hosts.

The training text of a source is cut into windows of L inputs, whose targets are the inputs one token later. Rows of
training are numbered over all steps; `mixture` says which source a row comes from and how many rows that source gave
before, and each source walks through a pseudo-random permutation of its windows. When it has used them up its next
epoch begins, with another permutation, at its very next row. Never imports tensorflow.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from research.config import RunConfig, check
from research.data.mixture import Mixture, mixture_of
from research.data.permutation import epoch_key, permute
from research.data.token_file import TokenFile, text_digest

_SOURCE_SEEDS = 1 << 32  # between the seeds of two sources, above every training.seed
_BLOCK_ROWS = 4096  # scheduled at a time, so that a step of a small model does not wait for its schedule


@dataclass(frozen=True)
class Validation:
    """A domain's held-out examples: batches of one shape, how many tokens they predict, the bytes of text those are.

    text_bytes is None where the tokens stand for no text.
    """

    batches: tuple[dict[str, np.ndarray], ...]
    tokens: int
    text_bytes: int | None


class Examples(NamedTuple):
    """Where a run's examples come from: token files, or a synthetic task.

    batch(step, process_index, process_count) is a pure function; validation(domain) are held-out examples; domains maps
    each to its share in the mean.
    """

    batch: Callable[[int, int, int], dict[str, np.ndarray]]
    validation: Callable[[str], Validation]
    domains: Mapping[str, float]


def text_examples(config: RunConfig, files: Mapping[str, TokenFile]) -> Examples:
    """The batches of a run on text, from the token file of each of its sources.

    Raises ConfigError for a file of too many ids or too little text, held out or to train on, or where a source would
    be read more often than training.max_epochs allows.
    """
    training = config.training
    for file in files.values():
        file.check_vocabulary(config.model.vocab_size)
    batch = training_batches(
        [files[source.name].train for source in config.data.sources],
        _checked_windows(config, files),
        mixture_of(config),
        batch_size=training.batch_size,
        sequence_length=training.sequence_length,
    )

    def of_domain(domain: str) -> Validation:
        return validation_batches(
            files,
            domain,
            batch_size=config.evaluation.batch_size,
            sequence_length=training.sequence_length,
            max_tokens=_held_out_tokens(config),
        )

    return Examples(batch, of_domain, config.data.mean_shares)


def text_digests(config: RunConfig, files: Mapping[str, TokenFile]) -> dict[str, str]:
    """What tells the text of a run from any other: the sha256 of the tokens it can read, by source and side.

    The same for a longer token file that begins with the same text. Raises what `text_examples` raises.
    """
    windows, digests = _checked_windows(config, files), {}
    for source, count in zip(config.data.sources, windows, strict=True):
        file = files[source.name]
        digests[f"{source.name}.train"] = text_digest(file, "train", count * config.training.sequence_length + 1)
        digests[f"{source.name}.validation"] = text_digest(file, "validation", config.data.validation_tokens)
    return digests


def training_batches(
    streams: Sequence[np.ndarray], windows: Sequence[int], mixture: Mixture, *, batch_size: int, sequence_length: int
) -> Callable[[int, int, int], dict[str, np.ndarray]]:
    """batch(step, process_index, process_count): {"inputs", "targets": int32, "weights": float32}, each (rows, L).

    streams : the training tokens of each source of the mixture, of which the first windows * L + 1 are read.

    Process i has rows [i * rows, (i + 1) * rows) of the global batch, rows = batch_size / process_count. Every window
    of a source occurs once in each of the source's epochs. The function raises ConfigError for a negative step, and for
    processes that do not divide the batch.
    """
    streams = [np.asarray(stream) for stream in streams]  # a memory map indexes more slowly than a plain array
    offsets = np.arange(sequence_length + 1)

    @lru_cache(maxsize=2)
    def block(number: int) -> tuple[np.ndarray, np.ndarray]:
        """The source and first token of each of _BLOCK_ROWS rows."""
        sources, given = mixture.draws(number * _BLOCK_ROWS, _BLOCK_ROWS)
        starts = np.empty(_BLOCK_ROWS, np.int64)
        for source, size in enumerate(windows):
            own = np.flatnonzero(sources == source)
            key = epoch_key(mixture.seed + _SOURCE_SEEDS * source, given[own] // size)
            starts[own] = permute(given[own] % size, size, key) * sequence_length
        return sources, starts

    def rows_from(first: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        low, high = first // _BLOCK_ROWS, (first + rows - 1) // _BLOCK_ROWS
        parts = [block(number) for number in range(low, high + 1)]
        sources, starts = (np.concatenate(column) for column in zip(*parts)) if high > low else parts[0]
        begin = first - low * _BLOCK_ROWS
        return sources[begin : begin + rows], starts[begin : begin + rows]

    def batch(step: int, process_index: int = 0, process_count: int = 1) -> dict[str, np.ndarray]:
        check(step >= 0, "step", step, "must not be negative", "count from 0")
        rows = _rows_per_process(batch_size, process_index, process_count, "training.batch_size")
        sources, starts = rows_from(step * batch_size + process_index * rows, rows)
        stream_BL = np.empty((rows, sequence_length + 1), np.int32)
        for source, stream in enumerate(streams):
            own = np.flatnonzero(sources == source)
            stream_BL[own] = stream[starts[own, None] + offsets]
        return {"inputs": stream_BL[:, :-1], "targets": stream_BL[:, 1:],
                "weights": np.ones((rows, sequence_length), np.float32)}  # fmt: skip

    return batch


def _checked_windows(config: RunConfig, files: Mapping[str, TokenFile]) -> list[int]:
    """Windows in one epoch of each source, in the order of the config; see `text_examples` for what it raises."""
    training, data = config.training, config.data
    _check_held_out(config, files)
    drawn = mixture_of(config).given_before(training.steps * training.batch_size)
    counts = []
    for source, rows in zip(data.sources, drawn.tolist(), strict=True):
        file, wanted = files[source.name], data.source_tokens(source.name)
        # One window more than its share of the tokens holds, since its rows are off by up to one from its share.
        count = min(-(-wanted // training.sequence_length) + 1, max(0, file.train.size - 1) // training.sequence_length)
        check(
            count > 0 and rows <= count * training.max_epochs,
            "training.steps",
            training.steps,
            f"takes {rows:,} windows of {training.sequence_length} tokens from source {source.name!r}, which are "
            f"{rows / max(count, 1):.2f} epochs of the {count:,} in {file.folder}, more than training.max_epochs = "
            f"{training.max_epochs:g}",
            "lower it, prepare more text, or allow repetition with a larger training.max_epochs",
        )
        counts.append(count)
    return counts


def _held_out_tokens(config: RunConfig) -> int:
    """Tokens per domain that a loss is asked to be of."""
    return min(config.evaluation.tokens, config.data.validation_tokens)


def _check_held_out(config: RunConfig, files: Mapping[str, TokenFile]) -> None:
    """A loss of less than one row of a batch is noise; of fewer tokens than are asked, `described` tells the reader."""
    row = min(config.training.sequence_length, _held_out_tokens(config))
    for source in config.data.sources:
        file = files[source.name]
        check(
            file.validation.size >= row,
            "data.validation_tokens",
            config.data.validation_tokens,
            f"source {source.name!r} holds {file.validation.size:,} held-out tokens in {file.folder}, too few for one "
            f"row of {row:,}, so its loss would say nothing",
            "raise data.validation_fraction, or use a larger source",
        )


def validation_batches(files: Mapping[str, TokenFile], domain: str, *, batch_size: int, sequence_length: int,
                       max_tokens: int | None = None, process_index: int = 0,
                       process_count: int = 1) -> Validation:  # fmt: skip
    """The first `max_tokens` held-out tokens of a domain (all of them if none), each a target exactly once.

    The end-of-document id stands before the first token as its input. What is missing in the last batch is padded and
    has weight 0, so that every batch is (batch_size / process_count, L). `tokens` and `text_bytes` count the global
    batches. Raises ConfigError for a domain that is not there, or processes that do not divide the batch.
    """
    check(domain in files, "domain", domain, "is no source of this run", f"choose from {list(files)}")
    tokens = files[domain]
    check(batch_size >= 1, "evaluation.batch_size", batch_size, "must be at least 1", "raise it")
    rows = _rows_per_process(batch_size, process_index, process_count, "evaluation.batch_size")
    targets = np.asarray(tokens.validation[:max_tokens])
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
