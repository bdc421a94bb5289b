"""Mamba, FalconMamba and Mamba-2 are Hugging Face's, and their checkpoints are read and written as they are."""

import pytest

from research.config import Mamba2Config, MambaConfig, ModelConfig

pytestmark = pytest.mark.oracles
pytest.importorskip("torch", reason="needs the oracles extra")
pytest.importorskip("transformers", reason="needs the oracles extra")
from oracle_tools import assert_equals_oracle  # noqa: E402

MAMBA_CASES = {
    "tied": {"tied_embeddings": True, "mamba": MambaConfig(state_size=8, chunk=4)},
    "narrow step, long taps": {"mamba": MambaConfig(state_size=5, expand=1, conv_width=7, dt_rank=3), "depth": 1},
    "scanned": {"mamba": MambaConfig(algorithm="associative"), "scan_layers": True},
}
MAMBA2_CASES = {
    "one group, tied": {"tied_embeddings": True, "mamba2": Mamba2Config(state_size=8, head_dim=8, chunk=4)},
    "groups": {"mamba2": Mamba2Config(state_size=5, head_dim=16, groups=4, chunk=16)},
    "recurrent": {"mamba2": Mamba2Config(state_size=8, head_dim=8, groups=2, algorithm="recurrent"), "depth": 1},
}


def _model(pattern, **fields):
    return ModelConfig(**{"vocab_size": 97, "width": 32, "depth": 2, "pattern": pattern, **fields})


@pytest.mark.parametrize("case", MAMBA_CASES)
def test_mamba(case):
    assert_equals_oracle("mamba", _model("mamba", **MAMBA_CASES[case]))


def test_falcon_mamba():
    assert_equals_oracle("falcon_mamba", _model("mamba", mamba=MambaConfig(inner_norms="fixed", chunk=4)))


@pytest.mark.parametrize("case", MAMBA2_CASES)
def test_mamba2(case):
    assert_equals_oracle("mamba2", _model("mamba2", **MAMBA2_CASES[case]))
