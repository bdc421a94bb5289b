"""S4, S4D and H3 equal the published implementations, whose float64 results tests/oracles/freeze_ssm.py has frozen."""

import functools
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.config import H3Config, ModelConfig, S4Config
from research.models import mixers
from research.models.layers import Shared
from research.models.state_spaces import hippo, ssm_kernel

FOLDER = Path(__file__).parent / "oracles" / "state_spaces"
WIDTH, STATE, LENGTH = 6, 8, 24  # as in freeze_ssm.py
S4D = ModelConfig(width=WIDTH, pattern="s4", s4=S4Config("diagonal", STATE, "lin", "zoh"))
H3 = {
    "one": ModelConfig(width=WIDTH, pattern="h3", h3=H3Config(1, STATE, "lin", "bilinear")),
    "two": ModelConfig(width=WIDTH, pattern="h3", h3=H3Config(2, STATE, "lin", "zoh")),
}


def _load(name: str, case: str = "") -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return {key.removeprefix(case): arrays[key] for key in arrays if key.startswith(case)}


def _under(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}


def _complex(pairs):
    return jax.lax.complex(pairs[..., 0], pairs[..., 1])


def _near(found, expected, relative, name=""):
    np.testing.assert_allclose(found, expected, atol=relative * np.abs(expected).max(), rtol=0, err_msg=name)


def _assert_output_and_gradients(function, frozen):
    """function(params under the oracle's names) -> output. Required: 1e-9 in float64, 1e-4 in float32, gradients 1e-3.

    In float64 the gradients are held to 1e-9 as well.
    """
    params = _under(frozen, "params/")
    assert not any((array == array.flat[0]).all() for array in params.values())

    def loss(params):
        output = function(params)
        return (frozen["weights"].astype(output.dtype) * output).sum(), output

    for kind, output_tolerance, gradient_tolerance in ((np.float64, 1e-9, 1e-9), (np.float32, 1e-4, 1e-3)):
        with jax.enable_x64(kind == np.float64):
            gradients, output = jax.jit(jax.grad(loss, has_aux=True))({k: a.astype(kind) for k, a in params.items()})
        assert output.dtype == kind
        _near(output, frozen["output"], output_tolerance)
        for name, expected in _under(frozen, "gradients/").items():
            _near(gradients[name], expected, gradient_tolerance, name)


def _low_rank(params):
    return ssm_kernel.LowRank(
        jax.lax.complex(-jnp.exp(params["A_real"]), -params["A_imag"]),
        _complex(params["P"])[0],
        _complex(params["B"])[0],
        _complex(params["C"])[0],
        jnp.exp(params["inv_dt"])[:, 0],
    )


def test_dplr_kernel_and_its_gradients_equal_state_spaces():
    _assert_output_and_gradients(lambda p: ssm_kernel.dplr_kernel(_low_rank(p), LENGTH).T, _load("s4"))


def test_dplr_recurrence_equals_state_spaces():
    """Their dense matrices, step by step, beyond the kernel's length."""
    frozen = _load("s4")
    with jax.enable_x64(True):
        system = _low_rank(jax.tree.map(jnp.asarray, _under(frozen, "params/")))
        step = functools.partial(ssm_kernel.dplr_step, system, ssm_kernel.dplr_readout(system, LENGTH))
        impulse_BLD = jnp.zeros((1, LENGTH + 8, WIDTH)).at[:, 0].set(1.0)
        response_BLD, _ = ssm_kernel.recurrence(step, jnp.zeros((1, WIDTH, STATE)), impulse_BLD, None)
    _near(response_BLD[0].T, frozen["response"], 1e-9)


def test_legs_starts_as_in_state_spaces_up_to_phases():
    frozen = _under(_load("s4"), "start/")
    eigenvalues, low_rank, inputs = (vector[::-1] for vector in hippo.diagonal_plus_low_rank(STATE))  # they fall
    _near(eigenvalues, frozen["eigenvalues"].conj(), 1e-12)
    _near(low_rank, np.abs(frozen["low_rank"]), 1e-12)
    _near(inputs, np.abs(frozen["input"]), 1e-12)
    # One phase an eigenvector: the two vectors turn together.
    _near(frozen["low_rank"] * np.sqrt(2), frozen["input"], 1e-12)


def test_dplr_kernel_equals_annotated_s4():
    frozen = _load("annotated_s4")
    half = slice(STATE // 2)
    with jax.enable_x64(True):
        # That code takes the conjugate of C, as an inner product does.
        vectors = [jnp.asarray(frozen[name][None, half]) for name in ("eigenvalues", "low_rank", "input")]
        system = ssm_kernel.LowRank(
            *vectors, jnp.asarray(frozen["readout"][None, half]).conj(), jnp.asarray(frozen["step"])[None]
        )
        kernel = ssm_kernel.dplr_kernel(system, LENGTH - 1)[:, 0]
    _near(kernel, frozen["kernel"], 1e-9)
    _near(kernel, frozen["powers"], 1e-9)


def _s4d_params(params):
    return {
        "log_damping": params["kernel.log_A_real"],
        "frequency": params["kernel.A_imag"],
        "log_dt": params["kernel.log_dt"],
        "readout_real": params["kernel.C"][..., 0],
        "readout_imaginary": params["kernel.C"][..., 1],
        "skip": params["D"],
        "out": params["output_linear.0.weight"][:, :, 0].T,
        "out_bias": params["output_linear.0.bias"],
    }


def _h3_params(heads, params):
    """Heads first everywhere; the oracle's output projection alone reads channel-major channels."""
    H, K = heads
    shift, diagonal = "ssm_k_kernel.kernel.", "kernel.kernel."
    ours = {
        "shift_input": params[f"{shift}B"].reshape(H, K, STATE),
        "shift_readout": params[f"{shift}C"].reshape(H, K, STATE),
        "shift_skip": params["ssm_k_D"].reshape(H, K),
        "log_damping": params[f"{diagonal}inv_A_real"],
        "frequency": params[f"{diagonal}A_imag"],
        "log_dt": params[f"{diagonal}log_dt"],
        "input_real": params[f"{diagonal}B"][..., 0],
        "input_imaginary": params[f"{diagonal}B"][..., 1],
        "readout_real": params[f"{diagonal}C"][0, ..., 0],
        "readout_imaginary": params[f"{diagonal}C"][0, ..., 1],
        "skip": params["D"],
        "out": params["output_linear.weight"].T.reshape(K, H, WIDTH).transpose(1, 0, 2),
        "out_bias": params["output_linear.bias"],
    }
    for theirs, name in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
        ours[name] = params[f"{theirs}.weight"].T.reshape(WIDTH, H, K)
        ours[f"{name}_bias"] = params[f"{theirs}.bias"].reshape(H, K)
    return ours


LAYERS = {
    "s4d": (S4D, "s4d", "", _s4d_params),
    "h3-head-1": (H3["one"], "h3", "one/", functools.partial(_h3_params, (6, 1))),
    "h3-head-2": (H3["two"], "h3", "two/", functools.partial(_h3_params, (3, 2))),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_and_their_gradients_equal_the_published_ones(layer):
    model, file, case, renamed = LAYERS[layer]
    frozen, mixer = _load(file, case), mixers.SEQUENCE_MIXERS[model.pattern]

    def function(params):
        x_BLD = frozen["input"].astype(params["D"].dtype)
        return mixer.module(model, 0).apply({"params": renamed(params)}, x_BLD, None, Shared())[0]

    _assert_output_and_gradients(function, frozen)


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_read_from_a_state_equal_the_published_ones(layer):
    """A prompt of five tokens in one call, then one token each."""
    model, file, case, renamed = LAYERS[layer]
    frozen, mixer = _load(file, case), mixers.SEQUENCE_MIXERS[model.pattern]
    with jax.enable_x64(True):
        params = renamed({name: jnp.asarray(array) for name, array in _under(frozen, "params/").items()})
        read = jax.jit(
            lambda x_BLD, state: mixer.module(model, 0).apply({"params": params}, x_BLD, state, Shared())[:2]
        )
        empty = mixer.init_state(replace(model, compute_dtype="float64"), 2, LENGTH)
        y_BLD, state = read(frozen["input"][:, :5], empty)
        outputs = [y_BLD]
        for t in range(5, LENGTH):
            y_BLD, state = read(frozen["input"][:, t : t + 1], state)
            outputs.append(y_BLD)
    _near(np.concatenate(outputs, axis=1), frozen["output"], 1e-9)
