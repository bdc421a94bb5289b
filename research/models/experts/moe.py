"""Mixture of experts: E SwiGLUs of which each token passes A, chosen by a router, and shared ones that all tokens pass.

Covers Switch (Fedus 2021: one expert, capacity), Mixtral (Jiang 2024: gates renormalised), OLMoE and Jamba (not
renormalised), DeepSeek-V3 (2024: sigmoid scores, groups, shared experts, balance by a bias) and expert choice (Zhou
2022). Fine-grained experts (Dai 2024) are more and narrower ones: m * E of hidden / m, m * A active.
"""

import flax.linen as nn
import flax.struct
import jax

from research.config import ConfigError, ModelConfig
from research.models.algorithms import algorithm
from research.models.experts import dispatch, router
from research.models.initialisers import NORMAL, NORMAL_OUT, zeros
from research.models.layers import Shared, at_least_float32, parameter, project, project_each
from research.sharding import constrain


class DecodeState(flax.struct.PyTreeNode):
    """Holds nothing, and says that a pass decodes: capacity limits whole sequences, and decoding drops no choice."""


def init_state(config: ModelConfig, batch: int, max_length: int) -> DecodeState:
    """The empty state. Raises ConfigError for expert choice, in which a token's experts depend on later tokens."""
    if config.moe.routing == "expert_choice":
        raise ConfigError(
            "model.moe.routing = 'expert_choice': cannot be decoded, since an expert takes its best tokens of a whole "
            "sequence and most of it is not there yet. Fix: use token_choice."
        )
    return DecodeState()


class Moe(nn.Module):
    """sum over the chosen experts of gate * expert(x), plus the shared experts. Router in float32."""

    config: ModelConfig
    layer: int

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, state: DecodeState | None, shared: Shared
    ) -> tuple[jax.Array, DecodeState | None, Shared]:
        cfg, D = self.config.moe, self.config.width
        E, F = cfg.experts, cfg.hidden
        router_DE = parameter(self, "router", (D, E), "width routes", NORMAL, "narrow")
        bias_E = None
        if cfg.bias_rate is not None:
            bias_E = parameter(self, "bias", (E,), "routes", zeros, "balance")
        logits_BLE = project(at_least_float32(x_BLD), router_DE)
        scores_BLE, probability_BLE = router.distribution(cfg, logits_BLE)
        slots = _capacity(self.config, x_BLD.shape[1], decoding=state is not None)
        if cfg.routing == "token_choice":
            routing = router.token_choice(cfg, scores_BLE, bias_E, shared.mask_BL, slots)
        else:
            routing = router.expert_choice(cfg, scores_BLE, shared.mask_BL, slots)
        self.sow(
            router.ROUTING,
            "statistics",
            router.statistics(cfg, logits_BLE, probability_BLE, routing, shared.mask_BL),
            init_fn=lambda: None,
            reduce_fn=lambda _, new: new,
        )
        wide, narrow = "experts expert_width hidden", "experts hidden expert_width"
        experts = (
            parameter(self, "gate", (E, D, F), wide, NORMAL, "hidden"),
            parameter(self, "up", (E, D, F), wide, NORMAL, "hidden"),
            parameter(self, "down", (E, F, D), narrow, NORMAL_OUT, "hidden"),
        )
        experts = tuple(weight.astype(x_BLD.dtype) for weight in experts)
        y_BLD = dispatch.pass_experts(algorithm(self.config, "moe"), x_BLD, routing, experts)
        return y_BLD + self._shared(x_BLD) if cfg.shared_experts else y_BLD, state, shared

    def _shared(self, x_BLD: jax.Array) -> jax.Array:
        """The shared experts, side by side as one SwiGLU."""
        D, F = self.config.width, self.config.moe.shared_experts * self.config.moe.hidden
        gate_DF = parameter(self, "shared_gate", (D, F), "width hidden", NORMAL, "hidden")
        up_DF = parameter(self, "shared_up", (D, F), "width hidden", NORMAL, "hidden")
        down_FD = parameter(self, "shared_down", (F, D), "hidden width", NORMAL_OUT, "hidden")
        gate_BLF, up_BLF = project_each(x_BLD, (gate_DF, "width hidden"), (up_DF, "width hidden"))
        hidden_BLF = constrain(jax.nn.silu(gate_BLF) * up_BLF, "batch length hidden")
        return project(hidden_BLF, down_FD)


def _capacity(config: ModelConfig, length: int, decoding: bool) -> int | None:
    """Places of an expert for one sequence; None where the algorithm needs no count of them."""
    cfg = config.moe
    if decoding or cfg.capacity_factor is None:
        return length if algorithm(config, "moe") == "capacity" else None
    return router.capacity(cfg, length)


def params(config: ModelConfig) -> int:
    """Trained parameters of one layer. The balancing bias of E numbers is none of them: no gradient moves it."""
    cfg = config.moe
    return config.width * (cfg.experts + 3 * cfg.hidden * (cfg.experts + cfg.shared_experts))


def active_params(config: ModelConfig) -> int:
    """Of the router, the A experts that a token passes, and the shared ones."""
    cfg = config.moe
    return config.width * (cfg.experts + 3 * cfg.hidden * (cfg.active + cfg.shared_experts))


def matmul_params(config: ModelConfig) -> int:
    """Parameters each token is multiplied with: the active ones."""
    return active_params(config)


def executed_flops(config: ModelConfig, length: int) -> int:
    """FLOPs of the rows its algorithm multiplies beyond the A * L that tokens ask for, over one sequence.

    Rows of one sequence: dense E * L, capacity E * X, ragged A * L. Negative for a capacity factor below one. What a
    CPU executes of `ragged` beyond that, the ends of its blocks, is not counted. The model's work is the A * L rows,
    whatever the algorithm and the capacity.
    """
    cfg = config.moe
    rows = {
        "dense": cfg.experts * length,
        "capacity": cfg.experts * router.capacity(cfg, length),
        "ragged": cfg.active * length,
    }[cfg.algorithm]
    return 2 * 3 * config.width * cfg.hidden * (rows - cfg.active * length)
