"""One mixture of experts, by itself, is the sparse block of each published model that Hugging Face has."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.config import ModelConfig, MoeConfig
from research.models.experts import moe, router
from research.models.layers import Shared, draw
from research.training.routing import auxiliary_loss

pytestmark = pytest.mark.oracles
torch = pytest.importorskip("torch", reason="needs the oracles extra")
pytest.importorskip("transformers", reason="needs the oracles extra")
from oracle_tools import assert_near, float64_everywhere, stacked_experts  # noqa: E402
from transformers import DeepseekV3Config, MixtralConfig, OlmoeConfig, Qwen3MoeConfig  # noqa: E402
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE  # noqa: E402
from transformers.models.mixtral.modeling_mixtral import (  # noqa: E402
    MixtralSparseMoeBlock,
    load_balancing_loss_func,
)
from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock  # noqa: E402
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock  # noqa: E402

from research.pretrained.experts import moe_tensors  # noqa: E402
from research.pretrained.tensors import expert  # noqa: E402

WIDTH, HIDDEN, E, A = 24, 20, 8, 3
SIZES = {"hidden_size": WIDTH, "num_experts_per_tok": A, "intermediate_size": HIDDEN}
QWEN3 = {"num_experts": E, "moe_intermediate_size": HIDDEN, "norm_topk_prob": True, **SIZES}
DEEPSEEK = {
    "n_routed_experts": E, "moe_intermediate_size": HIDDEN, "n_shared_experts": 2, "n_group": 4, "topk_group": 2,
    "routed_scaling_factor": 2.5, **SIZES,
}  # fmt: skip
CASES = {
    "mixtral": (
        MoeConfig(E, A, HIDDEN),
        lambda: MixtralSparseMoeBlock(MixtralConfig(num_local_experts=E, **SIZES)),
    ),
    "olmoe": (
        MoeConfig(E, A, HIDDEN, renormalize=False),
        lambda: OlmoeSparseMoeBlock(OlmoeConfig(num_experts=E, **SIZES)),
    ),
    "qwen3_moe": (MoeConfig(E, A, HIDDEN), lambda: Qwen3MoeSparseMoeBlock(Qwen3MoeConfig(**QWEN3))),
    "deepseek_v3": (
        MoeConfig(
            E, A, HIDDEN, shared_experts=2, scores="sigmoid", gate_scale=2.5, groups=4, active_groups=2, bias_rate=1e-3
        ),
        lambda: DeepseekV3MoE(DeepseekV3Config(**DEEPSEEK)),
    ),
}


def _params(model):
    boxed = jax.eval_shape(lambda: moe.Moe(model, 0).init(jax.random.key(0), jnp.zeros((1, 1, WIDTH)), None, Shared()))[
        "params"
    ]
    rng = np.random.default_rng(0)
    moved = jax.tree.map(
        lambda a: np.asarray(a) + 0.1 * rng.normal(size=a.shape).astype(np.float32), draw(boxed, jax.random.key(0))
    )
    return moved


def _named(model, tree):
    """Our parameters, or their gradients, under the block's names, by the table that the checkpoints use."""
    flat = {path: np.asarray(value) for path, value in tree.items()}
    for name in ("gate", "up", "down"):
        flat |= {expert(name, i): part for i, part in enumerate(flat.pop(name))}
    table = moe_tensors("block.", "", model.moe)
    stored = stacked_experts({tensor.name: tensor.join([flat[path] for path in tensor.paths]) for tensor in table})
    return {name.removeprefix("block."): value for name, value in stored.items()}


def _theirs(case, model, params):
    block = CASES[case][1]().eval()
    block.load_state_dict({name: torch.tensor(value) for name, value in _named(model, params).items()})
    return block


def _ours(model, params, x_BLD):
    (y_BLD, _, _), left = moe.Moe(model, 0).apply({"params": params}, x_BLD, None, Shared(), mutable=[router.ROUTING])
    return y_BLD, left[router.ROUTING]["statistics"]


@pytest.mark.parametrize("algorithm", ["dense", "capacity", "ragged"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case, algorithm):
    model = ModelConfig(width=WIDTH, moe=replace(CASES[case][0], algorithm=algorithm))
    params = _params(model)
    x_BLD = np.random.default_rng(1).normal(size=(2, 17, WIDTH)).astype(np.float32)
    theirs, x = _theirs(case, model, params), torch.tensor(x_BLD, requires_grad=True)
    expected = theirs(x)
    torch.sin(expected).sum().backward()

    def ours(params, x_BLD):
        y_BLD, _ = _ours(model, params, x_BLD)
        return jnp.sin(y_BLD).sum(), y_BLD

    gradient = jax.jit(jax.value_and_grad(ours, argnums=(0, 1), has_aux=True))
    (_, found), (of_params, of_x) = gradient(params, x_BLD)
    assert_near(found, expected.detach().numpy(), 1e-5)
    assert_near(of_x, x.grad.numpy(), 1e-4)
    their_gradients = {name: value.grad for name, value in theirs.named_parameters()}
    for name, value in _named(model, of_params).items():
        if name in their_gradients:  # the bias is a buffer there
            assert_near(value, their_gradients[name].numpy(), 1e-4, name)
    if "bias" in params:
        assert (np.asarray(of_params["bias"]) == 0).all()
    with float64_everywhere():
        double = {name: np.asarray(value, np.float64) for name, value in params.items()}
        expected = _theirs(case, model, double)(torch.tensor(x_BLD, dtype=torch.float64)).detach().numpy()
        found, _ = _ours(model, double, np.asarray(x_BLD, np.float64))
        assert found.dtype == expected.dtype == np.float64
        assert_near(found, expected, 1e-12)


def test_balance_loss():
    """Theirs counts each of a token's choices, so that its least value is the number of them."""
    model = ModelConfig(width=WIDTH, moe=MoeConfig(E, A, HIDDEN, balance_loss=1.0, router_z_loss=0.0))
    params = _params(model)
    x_BLD = np.random.default_rng(1).normal(size=(2, 17, WIDTH)).astype(np.float32)
    logits = torch.tensor((x_BLD @ params["router"]).reshape(-1, E))
    expected = load_balancing_loss_func((logits,), E, A)
    _, statistics = _ours(model, params, x_BLD)
    assert float(auxiliary_loss(model.moe, {"layer": statistics})) == pytest.approx(float(expected) / A, rel=1e-5)
