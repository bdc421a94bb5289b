"""Model configs drawn at random over everything a config can say, for tests that must hold for all of them."""

import numpy as np

from research.model_config import AttentionConfig, MlpConfig, ModelConfig


def random_model(seed: int) -> ModelConfig:
    rng = np.random.default_rng(seed)
    kv_heads, group = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    heads = kv_heads * group
    head_dim = 2 * int(rng.integers(1, 9))
    prefix = int(rng.integers(3))
    return ModelConfig(
        vocab_size=int(rng.integers(11, 300)),
        width=int(rng.integers(3, 60)),
        depth=prefix + int(rng.integers(1, 5)),
        pattern=f"{prefix} * attention:mlp | attention:mlp" if prefix else "attention:mlp",
        attention=AttentionConfig(
            heads,
            kv_heads,
            head_dim,
            rope_pairs=str(rng.choice(["half", "interleaved"])),
            qk_norm=bool(rng.integers(2)),
            window=None if rng.integers(2) else int(rng.integers(1, 9)),
        ),
        mlp=MlpConfig(int(rng.integers(1, 90)), activation=str(rng.choice(["swiglu", "gelu"]))),
        norm=str(rng.choice(["rms", "layer"])),
        norm_placement=str(rng.choice(["pre", "post"])),
        parallel_mixers=bool(rng.integers(2)),
        embedding_norm=bool(rng.integers(2)),
        max_positions=16 if rng.integers(2) else None,
        tied_embeddings=bool(rng.integers(2)),
        scan_layers=bool(rng.integers(2)),
    )
