"""Laws of downstream tasks: loss on a task's answers, and accuracy from that loss, from held-out loss, from compute."""

import dataclasses

import jax
import jax.numpy as jnp

from analysis.laws.definition import Law, Parameter
from analysis.laws.loss import CHINCHILLA

TASK_LOSS = dataclasses.replace(
    CHINCHILLA,
    name="task_loss",
    formula="task_loss = E + A / params^alpha + B / tokens^beta",
    citation="Bhagia et al. 2024, arXiv:2412.04403, step 1",
    output="task_loss",
    parameters=tuple(
        dataclasses.replace(parameter, unit=parameter.unit.replace("nats per token", "bits per byte"))
        for parameter in CHINCHILLA.parameters
    ),
)

# An accuracy is a share, so that what a model that knows nothing has lies between 0 and 1. Floor and gain together may
# exceed 1: the upper end of the sigmoid of step 2 lies beyond a task loss of zero.
_FLOOR = Parameter("floor", "1", "accuracy of a model that knows nothing", high=1.0)
_GAIN = Parameter("gain", "1", "accuracy of a perfect model above the floor", high=2.0)

TASK_ACCURACY = Law(
    name="task_accuracy",
    formula="accuracy = floor + gain / (1 + exp(k (task_loss - middle)))",
    citation="Bhagia et al. 2024, arXiv:2412.04403, step 2",
    inputs=("task_loss",),
    output="accuracy",
    parameters=(
        _FLOOR,
        _GAIN,
        Parameter("k", "byte / bit", "steepness of the sigmoid", (1.0, 2.0, 4.0, 8.0, 16.0)),
        Parameter("middle", "bits per byte", "task loss half way", (0.25, 0.5, 0.75, 1.0, 1.5), start_unit="task_loss"),
    ),
    predict=lambda p, x: p["floor"] + p["gain"] * jax.nn.sigmoid(p["k"] * (p["middle"] - x["task_loss"])),
    residual="linear",
    may_be_zero=("task_loss",),
)

ACCURACY_LOSS = Law(
    name="accuracy_loss",
    formula="accuracy = floor + k exp(-gamma loss)",
    citation="Gadre et al. 2024, arXiv:2403.08540, with error = 1 - accuracy and floor = 1 - epsilon",
    inputs=("loss_nats",),
    output="accuracy",
    parameters=(
        _FLOOR,
        Parameter("k", "1", "accuracy above the floor at zero loss"),
        Parameter("gamma", "token / nat", "exponent of the loss", (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)),
    ),
    predict=lambda p, x: p["floor"] + p["k"] * jnp.exp(-p["gamma"] * x["loss_nats"]),
    residual="linear",
)

ACCURACY_COMPUTE = Law(
    name="accuracy_compute",
    formula="accuracy = floor + gain / (1 + (middle / flops)^k)",
    citation="Owen 2024, arXiv:2401.04757: a sigmoid in the logarithm of training compute",
    inputs=("flops",),
    output="accuracy",
    parameters=(
        _FLOOR,
        _GAIN,
        Parameter("k", "1", "steepness of the sigmoid in log(flops)", (0.1, 0.2, 0.4, 0.8)),
        Parameter("middle", "FLOP", "compute half way", (1e-2, 1e-1, 1.0, 10.0, 1e2, 1e3), start_unit="flops"),
    ),
    predict=lambda p, x: p["floor"] + p["gain"] * jax.nn.sigmoid(p["k"] * jnp.log(x["flops"] / p["middle"])),
    residual="linear",
)

LAWS = (TASK_LOSS, TASK_ACCURACY, ACCURACY_LOSS, ACCURACY_COMPUTE)
