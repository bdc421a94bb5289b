"""Jamba is Hugging Face's JambaForCausalLM, and its checkpoints are read and written as they are."""

from dataclasses import replace

import numpy as np
import pytest

from research.config import AttentionConfig, MambaConfig, MlpConfig, ModelConfig, MoeConfig
from research.pretrained.jamba import pattern

pytestmark = pytest.mark.oracles
pytest.importorskip("torch", reason="needs the oracles extra")
pytest.importorskip("transformers", reason="needs the oracles extra")
from oracle_tools import assert_equals_oracle  # noqa: E402

MODEL = ModelConfig(
    vocab_size=97,
    width=32,
    depth=4,
    pattern=pattern(4, (4, 2), (2, 1)),
    attention=AttentionConfig(4, 2, 8, positions="none"),
    mlp=MlpConfig(48),
    moe=MoeConfig(4, 2, 48, renormalize=False),
    mamba=MambaConfig(state_size=8, inner_norms="learned", chunk=4),
    norm_epsilon=1e-6,
)
NARROW = replace(
    MODEL,
    depth=3,
    pattern=pattern(3, (3, 1), (2, 0)),
    moe=MoeConfig(4, 2, 16, renormalize=False, algorithm="ragged"),
    mlp=MlpConfig(16),
)
CASES = {
    "period of four, tied": replace(MODEL, tied_embeddings=True),
    "ragged experts, odd depth": NARROW,
    "dense, scanned": replace(MODEL, depth=2, pattern=pattern(2, (2, 0), None), scan_layers=True),
}


def test_period_of_the_published_models():
    layers = ModelConfig(depth=8, pattern=pattern(8, (8, 4), (2, 1))).layers
    assert [layer[0] == "attention" for layer in layers] == [i == 4 for i in range(8)]
    assert [layer[1] == "moe" for layer in layers] == [i % 2 == 1 for i in range(8)]


def in_memory(tensors):
    """The module stacks its experts, gate above up; files hold them one by one."""
    stacked = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    for layer in sorted({name.partition(".experts.")[0] for name in tensors.keys() - stacked.keys()}):
        experts = [
            {part: tensors[f"{layer}.experts.{i}.{part}_proj.weight"] for part in ("gate", "up", "down")}
            for i in range(MODEL.moe.experts)
        ]
        gate_up = [np.concatenate([expert["gate"], expert["up"]]) for expert in experts]
        stacked[f"{layer}.experts.gate_up_proj"] = np.stack(gate_up)
        stacked[f"{layer}.experts.down_proj"] = np.stack([expert["down"] for expert in experts])
    return stacked


@pytest.mark.parametrize("case", CASES)
def test_jamba(case):
    assert_equals_oracle("jamba", CASES[case], in_memory=in_memory)
