"""A model at another width and depth, in the same proportions."""

from dataclasses import replace

from research.config import MlpConfig, ModelConfig, MoeConfig, check

HIDDEN_MULTIPLE = (
    8  # MLP widths are rounded to it: the SIMD width of this decade's CPUs, and it divides over tensor axes
)


def scaled(model: ModelConfig, width: int, depth: int) -> ModelConfig:
    """`model` at another width and depth in the same proportions: head width and hidden / width stay.

    Raises ConfigError if the width is not a whole number of heads.
    """
    attention = model.attention
    check(
        width % attention.head_dim == 0,
        "sizes",
        (width, depth),
        f"width must be a multiple of head_dim = {attention.head_dim}",
        "round the width",
    )
    heads = width // attention.head_dim
    group = attention.heads // attention.kv_heads
    check(
        heads % group == 0,
        "sizes",
        (width, depth),
        f"its {heads} heads must be a multiple of heads / kv_heads = {group}",
        "round the width",
    )

    def hidden(section: MlpConfig | MoeConfig) -> int:
        return max(HIDDEN_MULTIPLE, round(section.hidden * width / model.width / HIDDEN_MULTIPLE) * HIDDEN_MULTIPLE)

    return replace(
        model,
        width=width,
        depth=depth,
        mlp=replace(model.mlp, hidden=hidden(model.mlp)),
        moe=replace(model.moe, hidden=hidden(model.moe)),
        attention=replace(attention, heads=heads, kv_heads=heads // group),
        latent_attention=model.latent_attention.scaled(width / model.width),
    )
