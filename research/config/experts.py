"""A mixture of experts: its section of ModelConfig."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

from research.config.identity import not_identity
from research.config.section import Section, scaled_hidden
from research.config.validation import check, check_choices, check_positive, check_range

LOSS_TERMS = ("balance_loss", "balance_over", "router_z_loss")  # fields that shape training and not the function


@dataclass(frozen=True)
class MoeConfig(Section):
    """Channel mixer: a mixture of SwiGLU experts (Shazeer 2017); models/experts/moe.py says which published ones it
    covers."""

    experts: int = 8
    active: int = 2  # experts a token passes, beside the shared ones
    hidden: int = 344  # channels of each expert
    shared_experts: int = 0  # that every token passes (DeepSeekMoE)
    routing: Literal["token_choice", "expert_choice"] = "token_choice"
    future_leak_allowed: bool = False  # of expert choice: its losses are no language model's, which must be said
    scores: Literal["softmax", "sigmoid"] = "softmax"
    renormalize: bool = True  # a token's gates add up to one (Mixtral), or are the scores themselves (OLMoE, Jamba)
    gate_scale: float = 1.0  # of all gates: DeepSeek-V3's 2.5
    groups: int = 1  # of experts; a token chooses within its best `active_groups` (DeepSeek-V3)
    active_groups: int = 1
    capacity_factor: float | None = None  # expert capacity over its fair share; none: nothing is dropped
    # One function (models/experts/dispatch.py).
    algorithm: Literal["auto", "dense", "capacity", "ragged"] = not_identity("auto")
    balance_loss: float = 0.01  # weight of E * sum_i f_i P_i, 1 at its least (Switch, equation 4)
    balance_over: Literal["batch", "sequence"] = "batch"  # where f and P are means (sequence: DeepSeek-V3)
    router_z_loss: float = 0.001  # weight of mean(logsumexp(router logits)^2) (ST-MoE, equation 5)
    bias_rate: float | None = None  # balance by a bias of the selection moved this much a step (DeepSeek-V3); none: off

    def __post_init__(self):
        check_choices(self, "model.moe")
        check_range(self, "model.moe", "experts active hidden groups active_groups", 1)
        check_range(self, "model.moe", "shared_experts balance_loss router_z_loss bias_rate", 0)
        check_positive(self, "model.moe", "gate_scale capacity_factor")
        self._check_choice()
        self._check_groups()
        if self.routing == "expert_choice":
            self._check_expert_choice()

    def _check_choice(self) -> None:
        check(
            self.active <= self.experts,
            "model.moe.active",
            self.active,
            f"must be at most experts = {self.experts}",
            "lower it, or add experts",
        )
        check(
            not (self.renormalize and self.active == 1 < self.experts),
            "model.moe.renormalize",
            self.renormalize,
            "the gate of a single active expert would always be one, and the router would learn nothing from the loss",
            "set it to false, or active to 2 or more",
        )

    def _check_groups(self) -> None:
        size = self.experts // self.groups
        check(
            self.experts % self.groups == 0 and (self.groups == 1 or size >= 2),
            "model.moe.groups",
            self.groups,
            f"must divide experts = {self.experts} into groups of at least 2, since a group's worth is its best two",
            "choose a smaller divisor",
        )
        check(
            self.active_groups <= self.groups and self.active <= self.active_groups * size,
            "model.moe.active_groups",
            self.active_groups,
            f"must be at most groups = {self.groups}, and hold the active = {self.active} experts in groups of {size}",
            "choose a number in between",
        )

    def _check_expert_choice(self) -> None:
        check(
            self.algorithm in ("auto", "capacity") and self.capacity_factor is not None,
            "model.moe.algorithm",
            self.algorithm,
            "expert_choice fills the slots of a capacity_factor",
            "set algorithm to capacity and capacity_factor to 1",
        )
        check(
            not self.renormalize and self.groups == 1 and self.bias_rate is None,
            "model.moe.routing",
            self.routing,
            "experts choose tokens by score alone: there is nothing to renormalize, group or balance",
            "set renormalize to false, groups to 1 and bias_rate to none",
        )

    def check_fits(self, model: Any) -> None:
        """Refuse a causal language model that looks ahead, unless the config says that it is meant."""
        check(
            self.routing == "token_choice" or self.future_leak_allowed or not model.attention.causal,
            "model.moe.routing",
            self.routing,
            "an expert takes its best tokens of the whole sequence, so whether a token is taken depends on later ones: "
            "the loss of a language model falls by what it sees of the future",
            "use token_choice, or set model.moe.future_leak_allowed to true and call the losses by another name",
        )

    def check_microbatches(self, microbatches: int) -> None:
        """Refuse to split a batch whose loss is not the sum of its parts'."""
        check(
            microbatches == 1 or self.balance_over == "sequence" or self.balance_loss == 0,
            "training.microbatches",
            microbatches,
            "must be 1 where model.moe.balance_over is 'batch': a product of two means over the batch is no sum over "
            "its parts",
            "set model.moe.balance_over to sequence, or balance_loss to 0",
        )

    def scaled(self, ratio: Fraction) -> "MoeConfig":
        """Experts stay as many; each grows with the width."""
        return replace(self, hidden=scaled_hidden(self.hidden, ratio))
