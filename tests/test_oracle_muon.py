"""Muon's steps are those of torch.optim.Muon with the rule of the same root mean square as AdamW's (Liu 2025)."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_optimizers import MODEL

from research.config import MuonConfig
from research.models import language_model
from research.models.layers import is_boxed
from research.optim.optimizer import make_optimizer

pytestmark = pytest.mark.oracles
torch = pytest.importorskip("torch", reason="needs the oracles extra")

STEPS = 150
CONFIG = MuonConfig(
    learning_rate=2**-6, weight_decay=0.125, clip_norm=None, warmup_fraction=0, schedule="constant", momentum=0.9
)


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_the_steps_are_torchs(shape, monkeypatch):
    """torch does not correct the momentum for its start at zero, which optax does: 0.9^150 = 1e-7 of it is left when
    the steps are compared. Its iterations round to bfloat16, which is taken away here."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((STEPS, *shape)).astype(np.float32)
    start = rng.standard_normal(shape).astype(np.float32)

    parameter = torch.nn.Parameter(torch.tensor(start))
    oracle = torch.optim.Muon(
        [parameter],
        lr=CONFIG.learning_rate,
        weight_decay=CONFIG.weight_decay,
        momentum=CONFIG.momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    boxed = language_model.abstract(replace(MODEL, pattern="attention:mlp", scan_layers=False))
    box = next(box for box in jax.tree.leaves(boxed, is_leaf=is_boxed) if box.matrix.into and len(box.axes) == 2)
    optimizer = make_optimizer(
        CONFIG, {"w": box.replace(value=jax.ShapeDtypeStruct(shape, jnp.float32))}, CONFIG.numbers(STEPS)
    )
    params = {"w": jnp.asarray(start)}
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for gradient in gradients:
        before = parameter.detach().numpy().copy()
        parameter.grad = torch.tensor(gradient)
        oracle.step()
        updates, state = update({"w": jnp.asarray(gradient)}, state, {"w": jnp.asarray(before)})
    moved = parameter.detach().numpy() - before
    assert np.sqrt(np.mean((moved + CONFIG.learning_rate * CONFIG.weight_decay * before) ** 2)) > 1e-3
    # Five polynomials of degree five, each in float32, after which rounding of 1e-7 has grown by some hundred.
    np.testing.assert_allclose(updates["w"], moved, atol=1e-4 * np.abs(moved).max())
