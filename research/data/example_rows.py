"""Batches of examples: a beginning, prompt, completion and an end, one example a row, padded on the right.

They begin with the id that ends a document, as every document does among others in training, and every prompt that a
run is asked to continue (research/generation/vocabulary.py). The loss is of the completion and its end alone; heads
judge after each token of these. The whole example is among the inputs, its end too, so that a row is judged once it has
been read. Training goes through a pseudo-random permutation of the examples, another in each epoch.
"""

import logging
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from research.config import EOS_ID, DataConfig, ExamplesConfig, RunConfig, check
from research.data.batches import Examples, Validation
from research.data.encoding import encoder_of, tokenizer_model
from research.data.errors import DataError
from research.data.example_file import Example, read_examples
from research.data.permutation import epoch_key, permute
from research.data.token_file import sha256


class Tokenized(NamedTuple):
    """Examples as ids, their beginning and end included. tokens: (rows, ids of each); prompts, labels: (rows,) int64,
    ids of the prompt and label (0 where there is none); text_bytes: (rows,) of the completion."""

    tokens: tuple[np.ndarray, ...]
    prompts: np.ndarray
    labels: np.ndarray
    text_bytes: np.ndarray


def example_batches(config: RunConfig) -> Examples:
    """The batches of a run on examples, and its held-out ones.

    Raises DataError for a file that is not as it should be (`read_examples`) or holds examples longer than a sequence,
    ConfigError where training.steps asks for more epochs than training.max_epochs allows.
    """
    training, evaluation, length = config.training, config.evaluation, config.training.sequence_length
    labels = config.objective.labels(config.model)
    train, held_out = _sides(config.examples, config.data, length, labels)
    size, asked = len(train.tokens), training.steps * training.batch_size
    check(
        asked <= size * training.max_epochs,
        "training.steps",
        training.steps,
        f"takes {asked:,} examples, which is {asked / size:.2f} epochs of the {size:,} in {config.examples.path}, more "
        f"than training.max_epochs = {training.max_epochs:g}",
        "lower it, or allow repetition with a larger training.max_epochs",
    )

    def batch(step: int, process_index: int = 0, process_count: int = 1) -> dict[str, np.ndarray]:
        check(step >= 0, "step", step, "must not be negative", "count from 0")
        rows = training.batch_size // process_count
        numbers = step * training.batch_size + process_index * rows + np.arange(rows)
        chosen = permute(numbers % size, size, epoch_key(training.seed, numbers // size))
        return laid_out(train, chosen, length, labels is not None)

    def validation(domain: str) -> Validation:
        kept = min(len(held_out.tokens), max(1, evaluation.tokens // length))
        padded = np.full(-(-kept // evaluation.batch_size) * evaluation.batch_size, -1)
        padded[:kept] = np.arange(kept)
        rows = padded.reshape(-1, evaluation.batch_size)
        batches = tuple(laid_out(held_out, part, length, labels is not None) for part in rows)
        predicted = sum(int(made["weights"].sum()) for made in batches)
        return Validation(batches, predicted, int(held_out.text_bytes[:kept].sum()))

    return Examples(batch, validation, dict.fromkeys(config.domains, 1.0))


def example_digests(config: RunConfig) -> dict[str, str]:
    """What tells the ids of a run's examples from any other: sha256 of the file, and of the tokenizer if it has one."""
    model = tokenizer_model(config.data)
    return {"examples": config.examples.sha256} | ({} if model is None else {"tokenizer": sha256(model)})


def laid_out(side: Tokenized, rows: np.ndarray, length: int, labelled: bool) -> dict[str, np.ndarray]:
    """The arrays of a batch (research/data/arrays.py) of the examples that `rows` numbers; -1 is a row of no weight."""
    whole = np.zeros((len(rows), length + 1), np.int32)
    sizes, prompts = np.zeros((2, len(rows), 1), np.int64)
    for row, number in enumerate(rows):
        if number >= 0:
            ids = side.tokens[number]
            whole[row, : len(ids)] = ids
            sizes[row], prompts[row] = len(ids), side.prompts[number]
    at = np.arange(length)[None]
    found = {
        "inputs": whole[:, :-1],
        "targets": whole[:, 1:],
        "weights": ((at >= prompts - 1) & (at < sizes - 1)).astype(np.float32),
    }
    if labelled:
        found["labels"] = np.where(rows >= 0, side.labels[rows], 0).astype(np.int32)
        found["label_weights"] = ((at >= prompts) & (at < sizes)).astype(np.float32)
    return found


@lru_cache(maxsize=4)  # of several runs that one process trains on them
def _sides(config: ExamplesConfig, data: DataConfig, length: int, labels: int | None) -> tuple[Tokenized, Tokenized]:
    """(training, held-out) examples that fit into a sequence."""
    encode = encoder_of(data)
    fitting: tuple[list, list] = ([], [])
    too_long: list[tuple[Example, int]] = []
    for example in read_examples(config, labels):
        prompt = [EOS_ID, *encode(example.prompt)]
        ids = np.array([*prompt, *encode(example.completion), EOS_ID], np.int32)
        if len(ids) > length:
            too_long.append((example, len(ids)))
        else:
            label, size = example.label or 0, len(example.completion.encode())
            fitting[example.is_held_out].append((ids, len(prompt), label, size))
    if too_long:
        _refuse_or_warn(config, length, too_long, sum(map(len, fitting)))
    for name, side in zip(("training", "held-out"), fitting, strict=True):
        if not side:
            raise DataError(
                f"{config.path}: no {name} example fits into training.sequence_length = {length}. Fix: raise it."
            )
    train, held_out = (_tokenized(side) for side in fitting)
    return train, held_out


def _tokenized(side: list[tuple[np.ndarray, int, int, int]]) -> Tokenized:
    tokens, *counts = zip(*side, strict=True)
    return Tokenized(tokens, *(np.array(column, np.int64) for column in counts))


def _refuse_or_warn(config: ExamplesConfig, length: int, too_long: list[tuple[Example, int]], fitting: int) -> None:
    (first, size), longest = too_long[0], max(size for _, size in too_long)
    said = (
        f"{config.path}: {len(too_long):,} of {len(too_long) + fitting:,} examples are longer than "
        f"training.sequence_length = {length} tokens: the first in line {first.line:,} with {size:,}, the longest with "
        f"{longest:,}"
    )
    if config.too_long == "refuse":
        raise DataError(f"{said}. Fix: raise training.sequence_length, or set examples.too_long to leave_out.")
    logging.getLogger(__name__).warning("%s. They are left out.", said)
