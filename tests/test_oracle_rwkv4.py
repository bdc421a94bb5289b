"""RWKV-4 is Hugging Face's RwkvForCausalLM, and its checkpoints are read and written as they are."""

import pytest

from research.config import ModelConfig, Rwkv4Config

pytestmark = pytest.mark.oracles
pytest.importorskip("torch", reason="needs the oracles extra")
pytest.importorskip("transformers", reason="needs the oracles extra")
from oracle_tools import assert_equals_oracle  # noqa: E402

CASES = {
    "sequential": {},
    "parallel prefix": {"rwkv4": Rwkv4Config(algorithm="associative"), "scan_layers": True},
}


@pytest.mark.parametrize("case", CASES)
def test_rwkv4(case):
    fields = {"vocab_size": 97, "width": 32, "depth": 3, "pattern": "rwkv4_time:rwkv4_channel", **CASES[case]}
    assert_equals_oracle("rwkv", ModelConfig(**fields, norm="layer", embedding_norm=True))
