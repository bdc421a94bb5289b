"""Rows whose label is a rule over their tokens, for tests of objectives that judge."""

from dataclasses import replace

import numpy as np
from synthetic_tokens import tiny_run

from research.config import ExamplesConfig, HeadsConfig, ObjectiveConfig, RunConfig
from research.data.batches import Examples, Validation

MARKERS = 3  # ids 10, 11 and 12, of which one occurs in each row; all other tokens are above


def labelled_run(objective: ObjectiveConfig, **training) -> RunConfig:
    """A run of a second with the heads that any objective asks for."""
    config = tiny_run(max_epochs=100.0, **training)
    model = replace(config.model, heads=HeadsConfig(scalar=True, classes=MARKERS))
    examples = ExamplesConfig(sha256="0" * 64, path="planted")  # in whose place come `labelled_examples`
    return replace(config, model=model, objective=objective, examples=examples)


def rows(count: int, length: int, labels: int, seed: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Rows of 3 to `length` tokens, padded on the right; the label is which marker is among the first three tokens, or
    of two labels whether that is the first marker. What comes after the third is predicted and judged."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(20, 40, (count, length + 1)).astype(np.int32)
    marker = rng.integers(0, MARKERS, count)
    tokens[np.arange(count), rng.integers(0, 3, count)] = 10 + marker
    at, end = np.arange(length)[None], rng.integers(4, length, (count, 1), endpoint=True)
    is_token = at < end
    return {
        "inputs": np.where(is_token, tokens[:, :-1], 0),
        "targets": np.where(is_token, tokens[:, 1:], 0),
        "weights": (is_token & (at >= 2)).astype(np.float32),
        "labels": (marker if labels == MARKERS else marker == 0).astype(np.int32),
        "label_weights": (is_token & (at >= 3)).astype(np.float32),
    }


def labelled_examples(config: RunConfig) -> Examples:
    """Training rows and one held-out domain, drawn by (seed, step)."""
    training, count = config.training, config.evaluation.batch_size
    labels = config.objective.labels(config.model)

    def batch(step: int, process_index: int, process_count: int) -> dict[str, np.ndarray]:
        drawn = rows(training.batch_size, training.sequence_length, labels, (training.seed, 0, step))
        part = training.batch_size // process_count
        return {name: array[process_index * part : (process_index + 1) * part] for name, array in drawn.items()}

    def validation(domain: str) -> Validation:
        drawn = tuple(rows(count, training.sequence_length, labels, (0, 1, i)) for i in range(8))
        return Validation(drawn, sum(int(made["weights"].sum()) for made in drawn), None)

    return Examples(batch, validation, {"examples": 1.0})
