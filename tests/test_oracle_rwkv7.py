"""RWKV-7 is the RWKV7ForCausalLM of the rwkv7-hf package, and its checkpoints are read and written as they are."""

import pytest

from research.config import ModelConfig, Rwkv7Config

pytestmark = pytest.mark.oracles
pytest.importorskip("torch", reason="needs the oracles extra")
rwkv7_hf = pytest.importorskip("rwkv7_hf", reason="needs the oracles extra")
from oracle_tools import assert_equals_oracle  # noqa: E402


def tiny(**fields):
    pattern = "rwkv7_first:rwkv7_channel | rwkv7_time:rwkv7_channel"
    return ModelConfig(**{
        "vocab_size": 97, "width": 32, "depth": 3, "pattern": pattern, "norm": "layer", "embedding_norm": True, **fields
    })  # fmt: skip


CASES = {
    "chunked": tiny(rwkv7=Rwkv7Config(16, 2, 3, 4, 5, 6, "chunked", 4), scan_layers=True),
    "sequential": tiny(rwkv7=Rwkv7Config(8, 4, 3, 4, 5, 6, "sequential")),
    "one layer": tiny(rwkv7=Rwkv7Config(8, 2), pattern="rwkv7_first:rwkv7_channel", depth=1),
}


def build(settings):
    """Without a padding token, whose embedding would get no gradient."""
    return rwkv7_hf.RWKV7ForCausalLM(rwkv7_hf.RWKV7Config(**settings))


@pytest.mark.parametrize("case", CASES)
def test_rwkv7(case):
    assert_equals_oracle("rwkv7", CASES[case], build)
