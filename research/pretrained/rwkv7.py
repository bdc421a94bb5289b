"""RWKV-7 checkpoints (Peng 2025) in the layout of the `rwkv7-hf` and `fla` packages: RWKV7ForCausalLM."""

from typing import Any

from research.config import ModelConfig, Rwkv7Config
from research.pretrained.rwkv4 import channel_vector, norm_tensors
from research.pretrained.settings import KERNEL, NO_TABLE, Keys, because, must_equal, or_null, quotient
from research.pretrained.tensors import Tensor, bias, layer_paths, linear, same

MODEL_TYPE = "rwkv7"
IGNORED = None
RANKS = {
    "decay": "decay_low_rank_dim",
    "rate": "a_low_rank_dim",
    "value": "v_low_rank_dim",
    "gate": "gate_low_rank_dim",
}
MIXES = {"receptance": "r", "decay": "w", "key": "k", "value": "v", "rate": "a", "gate": "g"}
LOW_RANK = {"decay": "w", "rate": "a", "share": "v", "gate": "g"}
KEYS = Keys(
    read={
        "vocab_size": 65_536,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_heads": or_null(None),
        "num_attention_heads": or_null(None),
        "head_dim": or_null(None),
        "attention_hidden_size": or_null(None),
        "intermediate_size": or_null(None),
        "hidden_ratio": or_null(4.0, float),
        "decay_low_rank_dim": 64,
        "gate_low_rank_dim": 128,
        "a_low_rank_dim": 64,
        "v_low_rank_dim": 32,
        "value_dim": or_null(None, list),
        "norm_eps": 1e-5,
        "tie_word_embeddings": False,
    },
    only={"norm_bias": (True,), "norm_first": (True,), "hidden_act": ("sqrelu",), "attn": (None,)},
    unused={
        "max_position_embeddings": NO_TABLE,
        **because(KERNEL, "attn_mode fuse_norm fuse_cross_entropy fuse_linear_cross_entropy use_l2warp"),
    },
)


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    cfg, width = model.rwkv7, model.width
    ranks = cfg.ranks(width)._asdict()
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["RWKV7ForCausalLM"],
        "vocab_size": model.vocab_size,
        "hidden_size": width,
        "num_hidden_layers": model.depth,
        "num_heads": width // cfg.head_dim,
        "head_dim": cfg.head_dim,
        "intermediate_size": cfg.hidden(width),
        **{theirs: ranks[ours] for ours, theirs in RANKS.items()},
        "norm_eps": model.norm_epsilon,
        "norm_bias": True,
        "tie_word_embeddings": model.tied_embeddings,
    }


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; ranks that are the rule's at this width are left to it.

    `settings` are complete.
    """
    width, depth = settings["hidden_size"], settings["num_hidden_layers"]
    heads = settings["num_heads"] or settings["num_attention_heads"]
    head_dim = settings["head_dim"] or (width // heads if heads else 64)
    for key, value, words in (
        ("num_heads", width // head_dim, "hidden_size / head_dim"),
        ("num_attention_heads", width // head_dim, "hidden_size / head_dim"),
        ("attention_hidden_size", width, "hidden_size"),
        ("value_dim", [width] * depth, "hidden_size of each layer"),
    ):
        must_equal(settings, key, value, words)
    hidden = settings["intermediate_size"] or round((settings["hidden_ratio"] or 4.0) * width)
    rule = Rwkv7Config().ranks(width)._asdict()
    ranks = {ours: settings[theirs] for ours, theirs in RANKS.items()}
    later = " | rwkv7_time:rwkv7_channel" if depth > 1 else ""
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=width,
        depth=depth,
        pattern=f"rwkv7_first:rwkv7_channel{later}",
        rwkv7=Rwkv7Config(
            head_dim=head_dim,
            expand=quotient({"intermediate_size": hidden}, "intermediate_size", width, "hidden_size"),
            **{f"{name}_rank": None if rank == rule[name] else rank for name, rank in ranks.items()},
        ),
        norm="layer",
        norm_epsilon=settings["norm_eps"],
        embedding_norm=True,
        tied_embeddings=settings["tie_word_embeddings"],
    )


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    table = [
        same("model.embeddings.weight", "embedding"),
        *norm_tensors("model.layers.0.pre_norm", "embedding_norm"),
        *norm_tensors("model.norm", "final_norm"),
    ]
    if not model.tied_embeddings:
        table.append(linear("lm_head.weight", "head"))
    for i, layer in enumerate(layer_paths(model)):
        block, time, channel = f"model.layers.{i}.", f"{layer}_mixer", f"{layer}_channel"
        table += [
            *norm_tensors(block + "attn_norm", f"{time}_norm"),
            *norm_tensors(block + "ffn_norm", f"{channel}_norm"),
            *_time_tensors(block + "attn.", f"{time}/", first=i == 0),
            same(block + "ffn.x_k", f"{channel}/key_mix"),
            linear(block + "ffn.key.weight", f"{channel}/key"),
            linear(block + "ffn.value.weight", f"{channel}/value"),
        ]
    return table


def _time_tensors(name: str, path: str, first: bool) -> list[Tensor]:
    """One time mix; the first layer's has no share of values to learn."""
    table = [channel_vector(f"{name}x_{theirs}", f"{path}{ours}_mix") for ours, theirs in MIXES.items()]
    table += [linear(f"{name}{ours[0]}_proj.weight", path + ours) for ours in ("receptance", "key", "value")]
    table += [
        linear(name + "o_proj.weight", path + "out", inputs=2),
        bias(name + "k_k", path + "removal"),
        bias(name + "k_a", path + "key_rate"),
        same(name + "r_k", path + "bonus"),
        bias(name + "g_norm.weight", path + "norm_gain"),
        bias(name + "g_norm.bias", path + "norm_bias"),
    ]
    for ours, theirs in LOW_RANK.items():
        if first and ours == "share":
            continue
        table.append(linear(f"{name}{theirs}_lora.lora.0.weight", f"{path}{ours}_down"))
        table.append(linear(f"{name}{theirs}_lora.lora.2.weight", f"{path}{ours}_up"))
        if ours != "gate":
            table.append(bias(f"{name}{theirs}_lora.lora.2.bias", f"{path}{ours}_bias"))
    return table
