"""Parametrisations: how initialisation, multipliers and the optimizer's numbers change with a model's size, by role.

A parameter says where it is made what it is, its role, and which of its axes are summed over, its fan-in
(models/layers.py). What follows from that is said here alone, in two tables: `ROLES`, what a role is, and `RULES`, by
which power of its growth over the base model each number of a parameter changes:

    multiplier  of the weight where it is used
    init        of its standard deviation, beside the named scale (1 / sqrt(fan-in), an embedding's 1 / sqrt(width))
    rate        of its learning rate under Adam
    gradient    of the gradient of the weight as it is used, in powers of the width: Adam's epsilon follows it

Growth is that of the fan-in (of the width for parameters without one), so at the base every number is the standard
one. `mup` is Tensor Programs V (Yang 2022), Table 8: the output has a multiplier. `mean_field` is the same model with
the scales put into multipliers, and so trains to the same losses; so are `ntk` and what Everett 2024 calls standard
with rates for each layer (Scaling Exponents Across Parameterizations and Optimizers, full alignment), where the head
starts as large at every width. `completep` is mup in width; in depth (Dey 2025, alpha = 1) each residual branch is
multiplied by base depth / depth, branches start as they do at the base depth, and epsilon falls with their gradients.
`standard` scales nothing beyond the named scales: this project's numbers as they always were.

What they do not say of themselves:
- Tied embeddings: the table keeps an embedding's rule. As the head it is multiplied by 1 / width ratio under every
  parametrisation, since its rate does not fall.
- An embedding under a norm starts at a fixed size and needs no rule but the rate's; neither do learned positions.
- QK-norm fixes the size of queries and keys, and not how alike they become: attention's 1 / head_dim stays right.
- z-loss and router z-loss read logits, whose size no longer depends on the width: their weights need no scaling.
- Clipping by the global norm comes before all of this. Norms of gradients are those of the weights as stored: they
  agree with another parametrisation's only where multipliers do.
- A router and whatever else maps the width to a fixed number is `narrow`: mup's output weight, with the multiplier put
  into its start and rate (Yang 2022, Table 3). A matrix that makes both kinds at once (Mamba's selection) is too.
- RWKV-7's time mix is not flat yet: its published gates start as width^-1/2 whatever the rank, and its ranks stay at 32
  below widths of some hundreds, where GROWTH takes them to grow. The coordinate check shows -1.0 for its output.
"""

from typing import Literal, NamedTuple

from research.config import ModelConfig, check

Role = Literal[
    "embedding", "hidden", "narrow", "output", "score", "kernel", "vector", "low_rank", "dynamics", "balance"
]

# Logical axes that grow with the width, and by which power. RWKV-7's ranks grow as its root (its gate's by 0.8).
GROWTH = {
    "width": 1.0,
    "expert_width": 1.0,
    "heads": 1.0,
    "kv_heads": 1.0,
    "hidden": 1.0,
    "inner": 1.0,
    "rank": 1.0,
    "thin_rank": 0.5,
}
EITHER = "kv_heads"  # grows, but for multi-query attention's single one


class Facts(NamedTuple):
    """What a role is: decayed; contracted (it has a fan-in, which grows); whether its fan-out grows too."""

    decayed: bool
    contracted: bool
    widens: bool = False


ROLES: dict[Role, Facts] = {
    "embedding": Facts(decayed=True, contracted=False),  # rows looked up
    "hidden": Facts(decayed=True, contracted=True, widens=True),  # a matrix between widths
    "narrow": Facts(decayed=True, contracted=True),  # a matrix from a width to a fixed number
    "output": Facts(decayed=True, contracted=True),  # the head
    "score": Facts(decayed=False, contracted=True),  # a vector that a width is summed with
    "kernel": Facts(decayed=True, contracted=False),  # a fixed number of taps a channel
    "vector": Facts(decayed=False, contracted=False),  # gains, biases and whatever else a channel has one of
    "low_rank": Facts(decayed=False, contracted=True, widens=True),  # either factor of a matrix of low rank
    "dynamics": Facts(decayed=False, contracted=False),  # what a state space evolves by; its rate is capped besides
    "balance": Facts(decayed=False, contracted=False),  # a router's bias, which no gradient moves
}


class Rule(NamedTuple):
    """Powers of the growth; the last one of the width ratio."""

    multiplier: float
    init: float
    rate: float
    gradient: float


_MUP: dict[Role, Rule] = {
    "embedding": Rule(0, 0.5, 0, -1),
    "hidden": Rule(0, 0, -1, -1),
    "narrow": Rule(0, -0.5, -1, 0),
    "output": Rule(-1, 0.5, 0, 0),
    "score": Rule(0, -0.5, -1, 0),
    "kernel": Rule(0, 0, 0, -1),
    "vector": Rule(0, 0, 0, -1),
    "low_rank": Rule(0, 0, -1, -1),
    "dynamics": Rule(0, 0, 0, -1),
    "balance": Rule(0, 0, 0, 0),
}
RULES: dict[str, dict[Role, Rule]] = {
    "standard": dict.fromkeys(ROLES, Rule(0, 0, 0, 0)),
    "mup": _MUP,
    "mean_field": _MUP
    | {
        "hidden": Rule(-0.5, 0.5, -0.5, -1),
        "narrow": Rule(-1, 0.5, 0, 0),
        "score": Rule(-1, 0.5, 0, 0),
        "low_rank": Rule(-0.5, 0.5, -0.5, -1),
    },
    "ntk": {
        "embedding": Rule(0, 0.5, 0, -0.5),
        "hidden": Rule(-0.5, 0.5, -0.5, -0.5),
        "narrow": Rule(-0.5, 0.5, -0.5, 0),
        "output": Rule(-0.5, 0.5, -0.5, 0),
        "score": Rule(-0.5, 0.5, -0.5, 0),
        "kernel": Rule(0, 0, 0, -0.5),
        "vector": Rule(0, 0, 0, -0.5),
        "low_rank": Rule(-0.5, 0.5, -0.5, -0.5),
        "dynamics": Rule(0, 0, 0, -0.5),
        "balance": Rule(0, 0, 0, 0),
    },
    "completep": _MUP,
}


class Scaling(NamedTuple):
    """What a parameter's numbers are multiplied with, its weight's own first; all 1 under the standard one."""

    multiplier: float = 1.0
    init: float = 1.0
    rate: float = 1.0
    decay: float = 1.0
    epsilon: float = 1.0


def check_fans(name: str, role: Role, into: tuple[str, ...], out: tuple[str, ...]) -> None:
    """Raise ConfigError if a parameter's axes are not those of its role, whose rules would be wrong for it.

    into, out: the axes of its fan-in, empty without one, and the others.
    """
    facts = ROLES[role]
    grows, widens = any(axis in GROWTH for axis in into), any(axis in GROWTH for axis in out)
    check(
        not facts.contracted or (grows and (widens == facts.widens or EITHER in out)),
        f"role of parameter {name}",
        role,
        f"is of a fan-in that grows with the width and a fan-out that {'does' if facts.widens else 'does not'}, "
        f"and its axes are {' '.join(into)} -> {' '.join(out)}",
        "choose another role, or name its axes by what they are (GROWTH)",
    )


def scaling(model: ModelConfig, role: Role, into: tuple[str, ...], in_branch: bool) -> Scaling:
    """Of a parameter with the fan-in axes `into`, in a residual branch or outside of all."""
    config = model.parametrisation
    if config.name == "standard":
        return Scaling()
    rule, width = RULES[config.name][role], config.width_ratio(model.width)
    growth = width ** sum(GROWTH.get(axis, 0.0) for axis in into) if into else width
    multiplier, rate = growth**rule.multiplier, growth**rule.rate
    branch = 1 / config.depth_ratio(model.depth) if in_branch and role != "balance" else 1.0
    return Scaling(
        multiplier=multiplier,
        init=growth**rule.init,
        rate=rate,
        decay=1 / rate if config.decay == "independent" else 1.0,
        epsilon=width**rule.gradient * multiplier * branch,
    )


def product_multiplier(model: ModelConfig) -> float:
    """Of products of two activations over all channels of the width: they become alike, and sums of so many terms."""
    return 1 / model.parametrisation.width_ratio(model.width)


def tied_head_multiplier(model: ModelConfig) -> float:
    """Of the embedding table where it is the head."""
    return 1 / model.parametrisation.width_ratio(model.width)


def branch_multiplier(model: ModelConfig) -> float:
    """Of every residual branch."""
    return 1 / model.parametrisation.depth_ratio(model.depth)
