"""mup's rules are those of the package of its authors: the same mlp starts alike and moves alike under MuAdamW.

`mup` (Yang 2022, github.com/microsoft/mup) knows three kinds of weights: into the width, between widths, out of it.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.config import AdamWConfig, ModelConfig, ParametrisationConfig
from research.models.initialisers import NORMAL, zeros
from research.models.layers import parameter
from research.optim.optimizer import make_optimizer

pytestmark = pytest.mark.oracles
torch = pytest.importorskip("torch", reason="needs the oracles extra")
mup = pytest.importorskip("mup", reason="needs the oracles extra")

BASE, WIDTHS, VOCAB, STEPS = 32, (32, 256), 24, 4
OPTIMIZER = AdamWConfig(
    2**-8, schedule="constant", warmup_fraction=0, clip_norm=None, weight_decay=0.125, epsilon=1e-20
)
NAMES = {  # ours, and mup's, whose matrices are transposed
    "embedding": "embedding.weight", "embedding_bias": "embedding.bias",
    "hidden": "hidden.weight", "hidden_bias": "hidden.bias", "head": "head.weight",
}  # fmt: skip


class Mlp(nn.Module):
    """Two hidden layers; returns what stands before each activation, and the logits."""

    config: ModelConfig

    @nn.compact
    def __call__(self, tokens_B: jax.Array) -> tuple[jax.Array, ...]:
        D = self.config.width
        table_VD = parameter(self, "embedding", (VOCAB, D), "vocab width", NORMAL, "embedding")
        first_BD = table_VD[tokens_B] + parameter(self, "embedding_bias", (D,), "width", zeros, "vector")[None]
        hidden_DD = parameter(self, "hidden", (D, D), "width hidden", NORMAL, "hidden")
        bias_D = parameter(self, "hidden_bias", (D,), "hidden", zeros, "vector")
        second_BD = jax.nn.relu(first_BD) @ hidden_DD + bias_D[None]
        head_DV = parameter(self, "head", (D, VOCAB), "width vocab", NORMAL, "output")
        return first_BD, second_BD, jax.nn.relu(second_BD) @ head_DV


class TorchMlp(torch.nn.Module):
    """The same, with the package's output layer."""

    def __init__(self, width):
        super().__init__()
        self.embedding, self.hidden = torch.nn.Linear(VOCAB, width), torch.nn.Linear(width, width)
        self.head = mup.MuReadout(width, VOCAB, bias=False)

    def forward(self, tokens):
        first = self.embedding(torch.nn.functional.one_hot(tokens, VOCAB).to(self.head.weight.dtype))
        second = self.hidden(torch.relu(first))
        return first, second, self.head(torch.relu(second))


def _theirs(width):
    torch.manual_seed(width)
    return mup.set_base_shapes(TorchMlp(width), TorchMlp(BASE), delta=TorchMlp(2 * BASE)).double()


def _ours(width):
    """(module, tree of boxes) of the parametrisation whose base is BASE wide."""
    module = Mlp(ModelConfig(VOCAB, width, 1, parametrisation=ParametrisationConfig("mup", BASE)))
    return module, jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(1, int))["params"])


def _batch():
    return np.random.default_rng(0).integers(VOCAB, size=(2, 16))


@pytest.mark.parametrize("width", WIDTHS)
def test_activations_move_as_under_the_packages_adam(width):
    """Every activation after each step, from the same stored weights, in float64 but for our first moments' float32.

    Required: 1e-8; steps are of 2^-8, whose rounding to float32 shows as 1e-9.
    """
    theirs, (tokens, targets) = _theirs(width), _batch()
    with jax.enable_x64(True):
        ours = list(_our_activations(width, theirs, tokens, targets))  # before the package moves its weights
    expected = list(_their_activations(theirs, tokens, targets))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-8), ours, expected)


def _their_activations(theirs, tokens, targets):
    matrices = [value for name, value in theirs.named_parameters() if name.endswith("weight")]
    biases = [value for name, value in theirs.named_parameters() if name.endswith("bias")]
    groups = [{"params": matrices}, {"params": biases, "weight_decay": 0.0}]
    optimizer = mup.MuAdamW(
        groups,
        lr=OPTIMIZER.learning_rate,
        weight_decay=OPTIMIZER.weight_decay,
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        eps=OPTIMIZER.epsilon,
    )
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(theirs(torch.tensor(tokens))[-1], torch.tensor(targets)).backward()
        optimizer.step()
        yield tuple(activation.detach().numpy() for activation in theirs(torch.tensor(tokens)))


def _our_activations(width, theirs, tokens, targets):
    module, boxed = _ours(width)
    stored = dict(theirs.named_parameters())
    params = {name: jnp.asarray(stored[other].detach().numpy().T) for name, other in NAMES.items()}
    optimizer = make_optimizer(OPTIMIZER, boxed, OPTIMIZER.numbers(STEPS))

    def loss(params):
        logits_BV = module.apply({"params": params}, tokens)[-1]
        return optax.softmax_cross_entropy_with_integer_labels(logits_BV, targets).mean()

    moments = optimizer.init(params)
    for _ in range(STEPS):
        updates, moments = optimizer.update(jax.grad(loss)(params), moments, params)
        params = optax.apply_updates(params, updates)
        yield module.apply({"params": params}, tokens)


@pytest.mark.parametrize("name", ["embedding", "hidden", "head"])
def test_matrices_start_as_much_larger_or_smaller_than_the_bases_as_the_packages(name):
    """Standard deviations over the base's. Required: 6 %; the package's least sample of 768 numbers errs by 1.6 %."""
    wide = 16 * BASE
    ours = _ours(wide)[1][name].init.std / _ours(BASE)[1][name].init.std
    samples = (dict(_theirs(width).named_parameters())[NAMES[name]].std().item() for width in (wide, BASE))
    assert ours == pytest.approx(np.divide(*samples), rel=0.06)
