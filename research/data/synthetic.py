"""Synthetic tasks in place of text: every example is drawn from (seed, step), so the stream never ends or repeats.

copy, reverse   a source of symbols, to be written again, forwards or backwards (Sutskever 2014; Bahdanau 2015, figure
                2, asks how quality depends on the source's length)
recall          key-value pairs, then some of the keys again, each to be answered with its value: multi-query
                associative recall (Arora 2023, arXiv:2312.04927, section 3.1 and appendix)

An encoder-decoder reads the source apart; a decoder-only model reads it before the target, in one sequence. Ids: 0
pads, 1 begins a target, 2 ends it, symbols start at 3.
"""

from typing import assert_never

import numpy as np

from research.config import TASK_CONTROL_IDS, RunConfig, TaskConfig, check
from research.data.batches import Examples, Validation

PAD, BEGIN, END = range(TASK_CONTROL_IDS)
GAP_EXPONENT = 0.01  # of the power law of gaps between recall's queries: Arora 2023, appendix, alpha


def task_examples(config: RunConfig) -> Examples:
    """Training batches of all lengths of the task, and held-out ones by length (or number of pairs).

    The held-out domains, `<task>_<length>`, have equal rates; no training batch is drawn with their seeds.
    """
    task, training, evaluation = config.task, config.training, config.evaluation
    encoder_decoder = config.model.encoder is not None

    def batch(step: int, process_index: int, process_count: int) -> dict[str, np.ndarray]:
        check(step >= 0, "step", step, "must not be negative", "count from 0")
        drawn = _batch(task, encoder_decoder, (training.seed, 0, step), training.batch_size, task.lengths)
        rows = training.batch_size // process_count
        return {name: array[process_index * rows : (process_index + 1) * rows] for name, array in drawn.items()}

    def validation(domain: str) -> Validation:
        length = int(domain.rpartition("_")[2])
        count = max(1, evaluation.tokens // (evaluation.batch_size * config.training.sequence_length))
        drawn = [
            _batch(task, encoder_decoder, (evaluation.seed, 1, length, i), evaluation.batch_size, (length, length))
            for i in range(count)
        ]
        predicted = sum(int(made["weights"].sum()) for made in drawn)
        return Validation(tuple(drawn), predicted, None)

    return Examples(batch, validation, dict.fromkeys(config.domains, 1.0))


def _batch(
    task: TaskConfig, encoder_decoder: bool, seed: tuple[int, ...], rows: int, lengths: tuple[int, int]
) -> dict[str, np.ndarray]:
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    if task.name == "recall":
        return _recall(task, generator, rows, lengths)
    sources, source_mask = _sources(task, generator, rows, lengths)
    if task.name == "copy":
        turned = sources
    elif task.name == "reverse":
        last = source_mask.sum(axis=1, keepdims=True) - 1
        turned = np.take_along_axis(sources, np.abs(last - np.arange(sources.shape[1])), axis=1) * source_mask
    else:
        assert_never(task.name)  # a name of the config without its branch here
    layout = _pairs if encoder_decoder else _sequences
    return layout(sources, turned, source_mask)


def _sources(
    task: TaskConfig, generator: np.random.Generator, rows: int, lengths: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Symbols (rows, longest length of the task), padded on the right, and where they are."""
    longest = task.lengths[1]
    length_B1 = generator.integers(lengths[0], lengths[1], (rows, 1), endpoint=True)
    mask_BS = np.arange(longest)[None] < length_B1
    symbols_BS = TASK_CONTROL_IDS + generator.integers(0, task.symbols, (rows, longest))
    return np.where(mask_BS, symbols_BS, PAD).astype(np.int32), mask_BS


def _pairs(sources_BS: np.ndarray, turned_BS: np.ndarray, mask_BS: np.ndarray) -> dict[str, np.ndarray]:
    """What an encoder-decoder reads: the source apart, and the target from BEGIN to END."""
    targets_BL = np.pad(turned_BS, ((0, 0), (0, 1)))
    weights_BL = np.pad(mask_BS, ((0, 0), (1, 0)), constant_values=True)  # the symbols and END after them
    targets_BL[np.arange(len(targets_BL)), mask_BS.sum(axis=1)] = END
    inputs_BL = np.pad(targets_BL[:, :-1], ((0, 0), (1, 0)), constant_values=BEGIN)
    return {
        "inputs": inputs_BL,
        "targets": targets_BL,
        "weights": weights_BL.astype(np.float32),
        "sources": sources_BS,
        "source_weights": mask_BS.astype(np.float32),
    }


def _sequences(sources_BS: np.ndarray, turned_BS: np.ndarray, mask_BS: np.ndarray) -> dict[str, np.ndarray]:
    """What a decoder-only model reads: source, BEGIN, target, END; only target and END are predicted."""
    rows, longest = sources_BS.shape
    length_B1 = mask_BS.sum(axis=1, keepdims=True)
    at_BL = np.arange(2 * longest + 2)[None] - length_B1  # 0 at BEGIN
    source_BL = np.pad(sources_BS, ((0, 0), (0, longest + 2)))
    target_BL = np.take_along_axis(turned_BS, np.clip(at_BL - 1, 0, longest - 1), axis=1)
    whole_BL = np.select([at_BL < 0, at_BL == 0, at_BL <= length_B1], [source_BL, BEGIN, target_BL], PAD)
    whole_BL = np.where(at_BL == length_B1 + 1, END, whole_BL).astype(np.int32)
    predicted_BL = (at_BL >= 1) & (at_BL <= length_B1 + 1)
    return {
        "inputs": whole_BL[:, :-1],
        "targets": whole_BL[:, 1:],
        "weights": predicted_BL[:, 1:].astype(np.float32),
    }


def _recall(
    task: TaskConfig, generator: np.random.Generator, rows: int, pairs: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Pairs, then every key once more at a power-law gap; the value is the target where a key is read again.

    Half of the symbols are keys, half values; positions between queries hold PAD. The number of pairs is one for the
    whole batch, drawn from `pairs`.
    """
    count, length = int(generator.integers(pairs[0], pairs[1], endpoint=True)), task.recall_length
    half = task.symbols // 2
    keys_BK = TASK_CONTROL_IDS + generator.permuted(np.tile(np.arange(half), (rows, 1)), axis=1)[:, :count]
    values_BK = TASK_CONTROL_IDS + half + generator.integers(0, half, (rows, count))
    room = length - 2 * count
    share = np.arange(1, room // 2 + 1) ** (GAP_EXPONENT - 1.0)
    slots_BK = _without_replacement(generator, share / share.sum(), rows, count)
    inputs_BL = np.full((rows, length), PAD)
    targets_BL, weights_BL = np.full((rows, length), PAD), np.zeros((rows, length), np.float32)
    inputs_BL[:, 0 : 2 * count : 2], inputs_BL[:, 1 : 2 * count : 2] = keys_BK, values_BK
    at_BK = 2 * count + 2 * slots_BK
    np.put_along_axis(inputs_BL, at_BK, keys_BK, axis=1)
    np.put_along_axis(targets_BL, at_BK, values_BK, axis=1)
    np.put_along_axis(weights_BL, at_BK, 1.0, axis=1)
    return {"inputs": inputs_BL.astype(np.int32), "targets": targets_BL.astype(np.int32), "weights": weights_BL}


def _without_replacement(generator: np.random.Generator, share: np.ndarray, rows: int, count: int) -> np.ndarray:
    """(rows, count) different indices of `share`, drawn in proportion to it: largest log share + Gumbel noise."""
    scores = np.log(share) + generator.gumbel(size=(rows, share.size))
    return np.argsort(-scores, axis=1)[:, :count]
