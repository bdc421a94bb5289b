"""The transformers of the field are one attention and one mlp with options; each equals Hugging Face's class for it."""

from dataclasses import replace

import numpy as np
import pytest
from random_configs import perturbed

from research.config import AttentionConfig, LatentAttentionConfig, MlpConfig, ModelConfig, MoeConfig, RopeScaling

pytestmark = pytest.mark.oracles
pytest.importorskip("torch", reason="needs the oracles extra")
pytest.importorskip("transformers", reason="needs the oracles extra")
from oracle_tools import (  # noqa: E402
    LOGITS,
    as_stored,
    assert_equals_oracle,
    from_transformers,
    load,
    logits_of,
    neox_in_memory,
    random_tokens,
    stacked_experts,
)

LLAMA = ModelConfig(vocab_size=97, width=32, depth=2, attention=AttentionConfig(4, 2, 8), mlp=MlpConfig(48))
OLMO2 = replace(LLAMA, norm_placement="post", attention=AttentionConfig(4, 2, 8, qk_norm="full", rope_theta=5e5))
NEOX = replace(
    LLAMA,
    attention=AttentionConfig(2, 2, 16, rope_fraction=0.25, biases="all"),
    mlp=MlpConfig(48, "gelu_exact", biases=True),
    norm="layer",
    parallel_mixers=True,
)
GPT2 = replace(
    LLAMA,
    attention=AttentionConfig(4, 4, 8, positions="none", biases="all"),
    mlp=MlpConfig(48, "gelu", biases=True),
    norm="layer",
    max_positions=16,
    tied_embeddings=True,
)
FALCON = replace(
    LLAMA,
    attention=AttentionConfig(4, 1, 8),
    mlp=MlpConfig(48, "gelu_exact"),
    norm="layer",
    parallel_mixers=True,
    shared_norm=True,
    tied_embeddings=True,
)
# The original length puts waves of these heads on either side of both of Llama 3.1's limits, and between them.
STRETCHED = AttentionConfig(4, 2, 16, rope_theta=5e5, rope_scaling=RopeScaling(original_length=64))
LATENT = replace(
    LLAMA,
    pattern="latent_attention:mlp",
    latent_attention=LatentAttentionConfig(4, 6, 4, 10, 12, 14),
)
# Four groups of three, of which two are open to a token: its four best experts are often not among them.
DEEPSEEK = replace(
    LATENT,
    depth=3,
    pattern="latent_attention:mlp | latent_attention:moe",
    moe=MoeConfig(
        *(12, 4, 6),
        shared_experts=2,
        scores="sigmoid",
        gate_scale=2.5,
        groups=4,
        active_groups=2,
        bias_rate=1e-3,
        balance_over="sequence",
    ),
)
MOE = replace(LLAMA, pattern="attention:moe", moe=MoeConfig(4, 2, 24))
CASES = {
    "llama-multi-head": ("llama", replace(LLAMA, attention=AttentionConfig(4, 4, 8))),
    "llama-3.1": ("llama", replace(LLAMA, attention=STRETCHED)),
    "llama-tied": ("llama", replace(LLAMA, tied_embeddings=True)),
    "llama-wide-heads": ("llama", replace(LLAMA, attention=AttentionConfig(2, 1, 24), scan_layers=True)),
    "llama-biases": (
        "llama",
        replace(LLAMA, attention=AttentionConfig(4, 2, 8, biases="all"), mlp=MlpConfig(48, biases=True)),
    ),
    "mistral": ("mistral", replace(LLAMA, attention=AttentionConfig(4, 2, 8, window=5))),
    "qwen2": ("qwen2", replace(LLAMA, attention=AttentionConfig(4, 2, 8, biases="qkv", rope_theta=1e6))),
    "qwen3": ("qwen3", replace(LLAMA, attention=AttentionConfig(4, 2, 12, qk_norm="head", rope_theta=1e6))),
    "olmo2": ("olmo2", OLMO2),
    "gpt2": ("gpt2", GPT2),
    "gpt-neox": ("gpt_neox", NEOX),
    "gpt-neox-sequential": ("gpt_neox", replace(NEOX, parallel_mixers=False)),
    "falcon": ("falcon", FALCON),
    "latent": ("deepseek_v3", LATENT),
    "latent-plain-queries": (
        "deepseek_v3",
        replace(LATENT, latent_attention=LatentAttentionConfig(4, 6, 4, 10, 12, rope_pairs="half")),
    ),
    "deepseek-v3": ("deepseek_v3", DEEPSEEK),
    "deepseek-v3-capacity": (
        "deepseek_v3",
        replace(
            DEEPSEEK,
            depth=4,
            pattern="2 * latent_attention:mlp | latent_attention:moe",
            moe=replace(DEEPSEEK.moe, renormalize=False, shared_experts=1, algorithm="capacity"),
            scan_layers=True,
        ),
    ),
    "mixtral": ("mixtral", MOE),
    "mixtral-ragged": ("mixtral", replace(MOE, moe=replace(MOE.moe, algorithm="ragged"), scan_layers=True)),
    "olmoe": (
        "olmoe",
        replace(
            MOE,
            attention=AttentionConfig(4, 2, 8, qk_norm="full"),
            moe=MoeConfig(6, 3, 16, renormalize=False, algorithm="capacity"),
        ),
    ),
    "qwen3-moe": ("qwen3_moe", replace(MOE, attention=AttentionConfig(4, 2, 12, qk_norm="head", rope_theta=1e6))),
}


IN_MEMORY = {
    "deepseek_v3": stacked_experts,
    "gpt_neox": neox_in_memory,
    "mixtral": stacked_experts,
    "olmoe": stacked_experts,
    "qwen3_moe": stacked_experts,
}


@pytest.mark.parametrize("case", CASES)
def test_logits_gradients_and_weights(case):
    family, model = CASES[case]
    assert_equals_oracle(family, model, in_memory=IN_MEMORY.get(family, as_stored))


def _without_bias(tensors):
    return {name: 0 * value if "correction_bias" in name else value for name, value in tensors.items()}


@pytest.mark.parametrize(
    ("changed", "in_memory"),
    [
        ({"n_group": 1, "topk_group": 1}, stacked_experts),
        ({"topk_group": 3}, stacked_experts),
        ({"routed_scaling_factor": 1.0}, stacked_experts),
        ({"norm_topk_prob": False}, stacked_experts),
        ({}, lambda tensors: stacked_experts(_without_bias(tensors))),
    ],
    ids=["groups", "active-groups", "scale", "renormalised", "bias"],
)
def test_each_part_of_the_routing_shows_in_the_logits(changed, in_memory):
    """Else an equality with the oracle would say nothing of it: a hundred times the tolerance, at the least."""
    params, tokens = perturbed(DEEPSEEK), random_tokens(DEEPSEEK)
    theirs = load("deepseek_v3", DEEPSEEK, params, lambda settings: from_transformers(settings | changed), in_memory)
    expected = logits_of(theirs, tokens).detach().numpy()
    assert np.abs(LOGITS(DEEPSEEK, params, tokens) - expected).max() > 1e-2 * np.abs(expected).max()
