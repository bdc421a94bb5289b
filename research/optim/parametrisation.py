"""Parametrisations: how initialisation, multipliers and the optimizer's numbers change with a model's size, by role.

A parameter says where it is made what it is, its role, and which of its axes are summed over, its fan-in
(models/layers.py). What follows from that is said here alone, in two tables: `ROLES`, what a role is, and `RULES`, by
which power of its growth over the base model each number of a parameter changes:

    multiplier  of the weight where it is used
    init        of its standard deviation, beside the named scale (1 / sqrt(fan-in), an embedding's 1 / sqrt(width))
    rate        of its learning rate under Adam; an optimizer whose steps of matrices are of another size says so itself
                (Optimizer.rate_scale: Muon's grow as a square root, those on a sphere not at all)
    gradient    of the gradient of the weight as it is used, in powers of the fan-out: Adam's epsilon follows it

Growth is that of the fan-in (of the width for parameters without one), so at the base every number is the standard
one. `mup` is Tensor Programs V (Yang 2022), Table 8: the output has a multiplier. `mean_field` is the same model with
the scales put into multipliers, and so trains to the same losses under independent decay (coupled decay goes by the
rate of the weight as stored); so are `ntk` and what Everett 2024 calls standard with rates for each layer (Scaling
Exponents Across Parameterizations and Optimizers, full alignment), where the head starts as large at every width.
`completep` is mup in width; in depth (Dey 2025, alpha = 1) each residual branch is multiplied by base depth / depth,
branches start as they do at the base depth, and epsilon falls with their gradients.
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
- Such a matrix whose products are normed is `normed`: the norm undoes its start's size, and one that falls beside the
  rate's steps would let the first of them turn the products round, the more so the wider the model.
- A rank that a section rounds, or holds fixed over a range of widths, grows as it does and not as its axis would have
  it: its ratio to the base model's is what counts. Matrices out of RWKV-7's ranks start by their fan-out, as published.
"""

import math
from typing import Literal, NamedTuple

from research.config import Axes, ModelConfig, OptimizerConfig, check

Role = Literal[
    "embedding",
    "hidden",
    "narrow",
    "normed",
    "output",
    "score",
    "kernel",
    "vector",
    "into_rank",
    "from_rank",
    "dynamics",
    "balance",
]

# Logical axes that grow with the width: as it does, but for a rank whose ratio to the base model's is given.
GROWING = frozenset({"width", "expert_width", "heads", "kv_heads", "hidden", "inner", "rank"})
EITHER = "kv_heads"  # grows, but for multi-query attention's single one


class Facts(NamedTuple):
    """What a role is: decayed; contracted (it has a fan-in, which grows); whether its fan-out grows too.

    by_fan_out: its published start is 1 / sqrt(fan-out), which the parametrisations turn into the fan-in's.
    """

    decayed: bool
    contracted: bool
    widens: bool = False
    by_fan_out: bool = False


ROLES: dict[Role, Facts] = {
    "embedding": Facts(decayed=True, contracted=False),  # rows looked up
    "hidden": Facts(decayed=True, contracted=True, widens=True),  # a matrix between widths
    "narrow": Facts(decayed=True, contracted=True),  # a matrix from a width to a fixed number
    "normed": Facts(decayed=True, contracted=True),  # such a matrix whose products are divided by their size
    "output": Facts(decayed=True, contracted=True),  # the head
    "score": Facts(decayed=False, contracted=True),  # a vector that a width is summed with
    "kernel": Facts(decayed=True, contracted=False),  # a fixed number of taps a channel
    "vector": Facts(decayed=False, contracted=False),  # gains, biases and whatever else a channel has one of
    "into_rank": Facts(decayed=False, contracted=True, widens=True),  # the first factor of a matrix of low rank
    "from_rank": Facts(decayed=False, contracted=True, widens=True, by_fan_out=True),  # the second one
    "dynamics": Facts(decayed=False, contracted=False),  # what a state space evolves by; its rate is capped besides
    "balance": Facts(decayed=False, contracted=False),  # a router's bias, which no gradient moves
}


class Rule(NamedTuple):
    """Powers of the growth; the last one of that of the fan-out, the width ratio where it is no rank."""

    multiplier: float
    init: float
    rate: float
    gradient: float


_MUP: dict[Role, Rule] = {
    "embedding": Rule(0, 0.5, 0, -1),
    "hidden": Rule(0, 0, -1, -1),
    "narrow": Rule(0, -0.5, -1, 0),
    "normed": Rule(0, 0, -1, 0),
    "output": Rule(-1, 0.5, 0, 0),
    "score": Rule(0, -0.5, -1, 0),
    "kernel": Rule(0, 0, 0, -1),
    "vector": Rule(0, 0, 0, -1),
    "into_rank": Rule(0, 0, -1, -1),
    "from_rank": Rule(0, 0, -1, -1),
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
        "normed": Rule(-1, 1, 0, 0),
        "score": Rule(-1, 0.5, 0, 0),
        "into_rank": Rule(-0.5, 0.5, -0.5, -1),
        "from_rank": Rule(-0.5, 0.5, -0.5, -1),
    },
    "ntk": {
        "embedding": Rule(0, 0.5, 0, -0.5),
        "hidden": Rule(-0.5, 0.5, -0.5, -0.5),
        "narrow": Rule(-0.5, 0.5, -0.5, 0),
        "normed": Rule(-0.5, 0.5, -0.5, 0),
        "output": Rule(-0.5, 0.5, -0.5, 0),
        "score": Rule(-0.5, 0.5, -0.5, 0),
        "kernel": Rule(0, 0, 0, -0.5),
        "vector": Rule(0, 0, 0, -0.5),
        "into_rank": Rule(-0.5, 0.5, -0.5, -0.5),
        "from_rank": Rule(-0.5, 0.5, -0.5, -0.5),
        "dynamics": Rule(0, 0, 0, -0.5),
        "balance": Rule(0, 0, 0, 0),
    },
    "completep": _MUP,
}


class Scaling(NamedTuple):
    """What a parameter's numbers are multiplied with, its weight's own first; all 1 under the standard one.

    rate, decay: under an optimizer whose steps are of Adam's kind; `by_optimizer` has another's. growth: of its fan-in.
    """

    multiplier: float = 1.0
    init: float = 1.0
    rate: float = 1.0
    decay: float = 1.0
    epsilon: float = 1.0
    growth: float = 1.0

    def by_optimizer(self, optimizer: OptimizerConfig, axes: Axes) -> "Scaling":
        """The same with the rate that the optimizer's steps of such a parameter ask for, and a decay that follows it
        where the parametrisation's does."""
        rate = optimizer.rate_scale(axes, self.rate, self.growth)
        return self if rate == self.rate else self._replace(rate=rate, decay=1 / rate if self.decay != 1 else 1.0)


def check_fans(name: str, role: Role, into: tuple[str, ...], out: tuple[str, ...]) -> None:
    """Raise ConfigError if a parameter's axes are not those of its role, whose rules would be wrong for it.

    into, out: the axes of its fan-in, empty without one, and the others.
    """
    facts = ROLES[role]
    grows, widens = any(axis in GROWING for axis in into), any(axis in GROWING for axis in out)
    check(
        not facts.contracted or (grows and (widens == facts.widens or EITHER in out)),
        f"role of parameter {name}",
        role,
        f"is of a fan-in that grows with the width and a fan-out that {'does' if facts.widens else 'does not'}, "
        f"and its axes are {' '.join(into)} -> {' '.join(out)}",
        "choose another role, or name its axes by what they are (GROWING)",
    )


def scaling(
    model: ModelConfig, role: Role, into: tuple[str, ...], in_branch: bool, rank_ratio: float | None = None
) -> Scaling:
    """Of a parameter with the fan-in axes `into`, in a residual branch or outside of all.

    rank_ratio: of its rank, if it has one, to the base model's; without, a rank grows as the width.
    """
    config = model.parametrisation
    if config.name == "standard":
        return Scaling()
    rule, width = RULES[config.name][role], config.width_ratio(model.width)
    rank = width if rank_ratio is None else rank_ratio
    growth = math.prod(rank if axis == "rank" else width for axis in into if axis in GROWING) if into else width
    fan_out = rank if role == "into_rank" else width
    multiplier, rate = growth**rule.multiplier, growth**rule.rate
    start = growth**rule.init * ((fan_out / growth) ** 0.5 if ROLES[role].by_fan_out else 1.0)
    branch = 1 / config.depth_ratio(model.depth) if in_branch and role != "balance" else 1.0
    return Scaling(
        multiplier=multiplier,
        init=start,
        rate=rate,
        decay=1 / rate if config.decay == "independent" else 1.0,
        epsilon=fan_out**rule.gradient * multiplier * branch,
        growth=growth,
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
