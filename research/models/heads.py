"""Heads: what final hidden states are multiplied with to say the next word, a number a token, or a row's class.

The language-model head is always there, so that a loss may join several. The others have no bias, as it has none.
They are outputs: matrices from the width to a fixed number, whose size must not change with the width.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.config import Head, ModelConfig, check
from research.models.initialisers import NORMAL
from research.models.layers import parameter
from research.optim.parametrisation import tied_head_multiplier


class Heads(NamedTuple):
    """Float32 matrices, multipliers applied; None of a head that the model does not have."""

    vocabulary_DV: jax.Array
    scalar_D: jax.Array | None
    classes_DC: jax.Array | None


def declared(module: nn.Module, table_VD: jax.Array) -> Heads:
    """The heads of a language model, made or read as parts of the module that calls this."""
    cfg: ModelConfig = module.config
    D = cfg.width
    if cfg.tied_embeddings:
        multiplier = tied_head_multiplier(cfg)
        vocabulary_DV = table_VD.T if multiplier == 1 else table_VD.T * multiplier
    else:
        vocabulary_DV = parameter(module, "head", (D, cfg.vocab_size), "width vocab", NORMAL, "output")
    scalar_D = classes_DC = None
    if cfg.heads.scalar:
        scalar_D = parameter(module, "scalar_head", (D,), "width", NORMAL, "output")
    if cfg.heads.classes is not None:
        classes_DC = parameter(module, "class_head", (D, cfg.heads.classes), "width classes", NORMAL, "output")
    return Heads(vocabulary_DV, scalar_D, classes_DC)


def word_logits(x_BLD: jax.Array, heads: Heads) -> jax.Array:
    """Next-token logits (B, L, V), at least float32, of final hidden states."""
    return _product("bld,dv->blv", x_BLD, heads.vocabulary_DV)


def token_scores(x_BLD: jax.Array, heads: Heads) -> jax.Array:
    """The scalar head's number after each token (B, L), at least float32. Raises ConfigError for a model without it."""
    check(heads.scalar_D is not None, "model.heads.scalar", False, "the model has no scalar head", "set it to true")
    return _product("bld,d->bl", x_BLD, heads.scalar_D)


def row_class_logits(x_BLD: jax.Array, heads: Heads, read_BL: jax.Array) -> jax.Array:
    """Class logits (B, C), at least float32, after the last token of each row at which read_BL is true.

    Zeros for a row that has no such token. Raises ConfigError for a model without the head.
    """
    rule = "the model has no class head"
    check(heads.classes_DC is not None, "model.heads.classes", None, rule, "set it to the number of classes")
    x_BD = jnp.sum(jnp.where(last_of_row(read_BL)[..., None], x_BLD, 0), axis=1)  # exact: one term is not zero
    return _product("bd,dc->bc", x_BD, heads.classes_DC)


def last_of_row(read_BL: jax.Array) -> jax.Array:
    """(B, L): true at the last true position of each row alone."""
    places_BL = jnp.where(read_BL, jnp.arange(read_BL.shape[1])[None], -1)
    return read_BL & (places_BL == places_BL.max(axis=1, keepdims=True))


def _product(axes: str, x: jax.Array, weight: jax.Array) -> jax.Array:
    precise = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.einsum(axes, x, weight.astype(x.dtype), preferred_element_type=precise)


def params(config: ModelConfig) -> int:
    """Parameters of the heads beside the language model's."""
    return config.width * (config.heads.scalar + (config.heads.classes or 0))


def matmul_params(config: ModelConfig, used: tuple[Head, ...]) -> int:
    """Parameters of the heads in `used` that every token is multiplied with."""
    of_words = config.vocab_size * config.width if "vocabulary" in used else 0
    return of_words + (config.width if "scalar" in used and config.heads.scalar else 0)


def sequence_flops(config: ModelConfig, used: tuple[Head, ...]) -> int:
    """Forward FLOPs of the heads in `used` that one token of a sequence is multiplied with."""
    return 2 * config.width * (config.heads.classes or 0) if "classes" in used else 0
