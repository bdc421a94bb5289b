"""Logits equal those an oracle gave for the same weights when tests/oracles/freeze.py ran: the proof without torch."""

from pathlib import Path

import jax
import numpy as np
import pytest

from research.config import ModelConfig, from_json
from research.models import language_model
from research.pretrained.tensors import unflatten

FILES = sorted((Path(__file__).parent / "oracles").glob("*.npz"))


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_logits_equal_the_frozen_ones(file):
    with np.load(file) as arrays:
        model = from_json(ModelConfig, str(arrays["config"]))
        params = {name.removeprefix("params/"): arrays[name] for name in arrays if name.startswith("params/")}
        tokens, expected = arrays["tokens"], arrays["logits"]
    assert not any((array == array.flat[0]).all() for array in params.values() if array.size > 1)
    logits = jax.jit(language_model.logits, static_argnums=0)(model, unflatten(model, params), tokens)
    # Required: 1e-4 relative in float32, sums being taken in another order.
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)
    assert file.stat().st_size <= 200_000


def test_there_are_frozen_oracles():
    assert FILES
