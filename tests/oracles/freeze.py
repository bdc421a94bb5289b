"""Write the frozen fixtures: weights, tokens and an oracle's logits, small enough to be committed (200 kB each).

    .venv-oracles/bin/python tests/oracles/freeze.py [NAME ...]

tests/test_frozen_oracles.py holds our models to them without torch. Each file has the model's config as JSON, our
parameters by path (`params/...`), the tokens and the float32 logits of the oracle at those weights.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

import test_oracle_jamba  # noqa: E402
import test_oracle_recurrent  # noqa: E402
import test_oracle_rwkv7  # noqa: E402
import test_oracle_transformers  # noqa: E402
from oracle_tools import Tensors, as_stored, from_transformers, load, logits_of, random_tokens  # noqa: E402
from random_configs import perturbed  # noqa: E402

from research.config import (  # noqa: E402  # noqa: E402
    AttentionConfig,
    Mamba2Config,
    MambaConfig,
    MlpConfig,
    ModelConfig,
    to_json,
)
from research.pretrained.tensors import flatten  # noqa: E402

MOST_BYTES = 200_000
LIVE = (
    *("deepseek-v3", "falcon", "gpt-neox", "gpt2", "latent", "llama-3.1", "mistral", "mixtral"),
    *("olmo2", "olmoe", "qwen2", "qwen3", "qwen3-moe"),
)
RWKV4 = {"pattern": "rwkv4_time:rwkv4_channel", "norm": "layer", "embedding_norm": True}


class Fixture(NamedTuple):
    model: ModelConfig
    params: dict  # as the model takes them
    tokens: np.ndarray
    logits: np.ndarray  # the oracle's


def of_transformers(family: str, **fields) -> Fixture:
    """Of a family in research/pretrained with a class in `transformers`; `fields` change the tiny model."""
    return of_model(family, ModelConfig(**{
        "vocab_size": 97, "width": 32, "depth": 2, "attention": AttentionConfig(4, 2, 8), "mlp": MlpConfig(64), **fields
    }))  # fmt: skip


def of_model(
    family: str, model: ModelConfig, in_memory: Callable[[Tensors], Tensors] = as_stored, build=from_transformers
) -> Fixture:
    params, tokens = perturbed(model), random_tokens(model)
    theirs = load(family, model, params, build, in_memory)
    return Fixture(model, params, tokens, logits_of(theirs, tokens).detach().numpy())


def of_live(case: str) -> Fixture:
    """Of one case of tests/test_oracle_transformers.py."""
    family, model = test_oracle_transformers.CASES[case]
    return of_model(family, model, test_oracle_transformers.IN_MEMORY.get(family, as_stored))


def of_recurrent() -> Fixture:
    """LSTM and GRU of torch.nn between torch's norms and linear layers."""
    model = test_oracle_recurrent.MODEL
    params, tokens = perturbed(model), random_tokens(model)
    logits = test_oracle_recurrent.torch_logits(model, params, tokens).detach().numpy()
    return Fixture(model, params, tokens, logits)


FIXTURES: dict[str, Callable[[], Fixture]] = {
    **{name: partial(of_live, name) for name in LIVE},
    "jamba": lambda: of_model("jamba", test_oracle_jamba.NARROW, test_oracle_jamba.in_memory),
    "mamba": lambda: of_transformers("mamba", pattern="mamba", mamba=MambaConfig(8, chunk=4), tied_embeddings=True),
    "mamba2": lambda: of_transformers("mamba2", pattern="mamba2", mamba2=Mamba2Config(8, 2, 8, 2, chunk=4)),
    "recurrent": of_recurrent,
    "rwkv4": lambda: of_transformers("rwkv", **RWKV4),
    "rwkv7": lambda: of_model("rwkv7", test_oracle_rwkv7.CASES["chunked"], build=test_oracle_rwkv7.build),
}


def freeze(name: str) -> None:
    fixture = FIXTURES[name]()
    file = FOLDER / f"{name}.npz"
    arrays = {f"params/{path}": array for path, array in flatten(fixture.model, fixture.params).items()}
    arrays |= {"config": np.array(to_json(fixture.model)), "tokens": fixture.tokens, "logits": fixture.logits}
    np.savez_compressed(file, **arrays)
    size = file.stat().st_size
    print(f"{file.name}: {size:,} bytes")
    if size > MOST_BYTES:
        raise SystemExit(f"{file.name} = {size} bytes: must be at most {MOST_BYTES}. Fix: make its model smaller.")


if __name__ == "__main__":
    for fixture_name in sys.argv[1:] or FIXTURES:
        freeze(fixture_name)
