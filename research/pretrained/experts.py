"""The tensors of a mixture of experts, which published files hold expert by expert."""

from collections.abc import Mapping

from research.config import MoeConfig
from research.pretrained.settings import DROPOUT, OTHER_OUTPUTS
from research.pretrained.tensors import Tensor, expert, linear, same

ROUTER_UNUSED = {"output_router_logits": OTHER_OUTPUTS, "router_jitter_noise": DROPOUT}  # keys that change nothing
PROJECTIONS = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}


def moe_tensors(
    name: str,
    path: str,
    cfg: MoeConfig,
    router: str = "gate",
    parts: Mapping[str, str] = PROJECTIONS,
) -> list[Tensor]:
    """Of the layer whose names begin with `name`: the router, every expert's matrices, and what DeepSeek adds."""
    table = [linear(f"{name}{router}.weight", path + "router")]
    for number in range(cfg.experts):
        table += [
            linear(f"{name}experts.{number}.{theirs}.weight", expert(path + ours, number))
            for ours, theirs in parts.items()
        ]
    if cfg.bias_rate is not None:
        table.append(same(f"{name}{router}.e_score_correction_bias", path + "bias"))
    if cfg.shared_experts:
        table += [
            linear(f"{name}shared_experts.{theirs}.weight", f"{path}shared_{ours}") for ours, theirs in parts.items()
        ]
    return table
