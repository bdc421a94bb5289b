"""Llama is Hugging Face's LlamaForCausalLM, and its checkpoints are read and written as they are."""

import pytest

from research.model_config import AttentionConfig, MlpConfig, ModelConfig

pytestmark = pytest.mark.oracles
pytest.importorskip("torch", reason="needs the oracles extra")
pytest.importorskip("transformers", reason="needs the oracles extra")
from oracle_tools import assert_equals_oracle  # noqa: E402

CASES = {
    "multi-head": {},
    "grouped": {"attention": AttentionConfig(4, 2, 8, rope_theta=5e5)},
    "tied": {"tied_embeddings": True},
    "wide-heads": {"attention": AttentionConfig(2, 1, 24), "scan_layers": True},
}


@pytest.mark.parametrize("case", CASES)
def test_llama(case):
    assert_equals_oracle("llama", ModelConfig(**{
        "vocab_size": 97, "width": 32, "depth": 3, "attention": AttentionConfig(4, 4, 8), "mlp": MlpConfig(64),
        **CASES[case],
    }))  # fmt: skip
