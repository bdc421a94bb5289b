"""Freeze what the published implementations of S4, S4D and H3 compute, as small arrays without their code.

    .venv-oracles/bin/python tests/oracles/freeze_ssm.py s4 CHECKOUT      state-spaces/s4, models/s4/s4.py at 070384aa
    .venv-oracles/bin/python tests/oracles/freeze_ssm.py s4d CHECKOUT     state-spaces/s4, models/s4/s4d.py at 2ed46fcf
    .venv-oracles/bin/python tests/oracles/freeze_ssm.py h3 CHECKOUT      HazyResearch/H3 at 70d87926
    .venv-oracles/bin/python tests/oracles/freeze_ssm.py annotated_s4 CHECKOUT       srush/annotated-s4 at c45e3a95

CHECKOUT is a folder with that repository's files; einops and opt_einsum must be installed beside the oracles extra.
Everything is computed in float64, with every parameter moved off its start. tests/test_frozen_ssm.py reads
state_spaces/NAME.npz: inputs, outputs, `params/` under the oracle's own names, and `gradients/` of the outputs' inner
product with `weights`.
"""

import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent / "state_spaces"
WIDTH, STATE, LENGTH = 6, 8, 24
Arrays = dict[str, np.ndarray]


def prepare(checkout: str) -> None:
    """Make the checkout importable without its training dependencies, and everything in it float64.

    The sources ask for float32 by name when a module is made and where a kernel might be half precision.
    """
    sys.path.insert(0, checkout)
    lightning = types.ModuleType("pytorch_lightning.utilities")
    lightning.rank_zero_only = lambda function: function
    sys.modules["pytorch_lightning"] = types.ModuleType("pytorch_lightning")
    sys.modules["pytorch_lightning.utilities"] = lightning
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    torch.manual_seed(0)


def move(module: torch.nn.Module) -> torch.nn.Module:
    """In float64, every parameter moved by 0.1 N(0, 1)."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return module


def measured(module: torch.nn.Module, output: torch.Tensor) -> Arrays:
    """The output, the parameters, and the gradients of sum(weights * output)."""
    weights = torch.randn(output.shape)
    (weights * output).sum().backward()
    found = {"output": output, "weights": weights}
    for name, parameter in module.named_parameters():
        found[f"params/{name}"], found[f"gradients/{name}"] = parameter, parameter.grad
    return {name: value.detach().numpy() for name, value in found.items()}


def s4() -> Arrays:
    """The dplr kernel (H, L), its recurrence's impulse response, and the three vectors that LegS starts from."""
    from models.s4.s4 import SSMKernelDPLR, nplr

    module = SSMKernelDPLR(d_model=WIDTH, d_state=STATE, l_max=LENGTH, init="legs", verbose=False).double()
    module(L=LENGTH)  # turns C into the C~ of this length
    module = move(module)
    found = measured(module, module(L=LENGTH)[0][0])
    module._setup_step()
    state, impulse, response = module.default_state(1), torch.ones(1, WIDTH), []
    with torch.no_grad():
        for _ in range(LENGTH + 8):
            output, state = module.step(impulse.to(state.dtype), state)
            impulse = torch.zeros(1, WIDTH)
            response.append(output[0, 0])
    eigenvalues, low_rank, inputs, _ = nplr("legs", STATE, dtype=torch.float64, B_clip=None)
    start = {"start/eigenvalues": eigenvalues, "start/low_rank": low_rank[0], "start/input": inputs}
    return found | {"response": torch.stack(response, 1).numpy()} | {name: a.numpy() for name, a in start.items()}


def s4d() -> Arrays:
    """The whole layer on a batch (B, L, D), GELU and gated linear layer included."""
    from models.s4.s4d import S4D

    module = move(S4D(WIDTH, d_state=STATE, transposed=False))
    inputs = torch.randn(2, LENGTH, WIDTH)
    return measured(module, module(inputs)[0]) | {"input": inputs.numpy()}


def h3(**fields) -> Arrays:
    """The whole layer on a batch (B, L, D), longer than the shift has taps."""
    from src.models.ssm.h3 import H3

    module = move(H3(WIDTH, d_state=STATE, mode="diag", measure="diag-lin", **fields))
    inputs = torch.randn(2, LENGTH, WIDTH)
    return measured(module, module(inputs)) | {"input": inputs.numpy()}


def h3_variants() -> Arrays:
    """head_dim 1 with bilinear discretisation (the published default), and head_dim 2 with zero-order hold."""
    cases = {"one": h3(head_dim=1), "two": h3(head_dim=2, disc="zoh")}
    return {f"{case}/{name}": array for case, arrays in cases.items() for name, array in arrays.items()}


def annotated_s4() -> Arrays:
    """The dplr kernel of one channel and its matrices, from vectors over all of N, conjugates included."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.numpy.DeviceArray = jax.Array  # the name that type had when the file was written
    from s4.s4 import K_conv, K_gen_DPLR, conv_from_gen, discrete_DPLR

    rng = np.random.default_rng(0)

    def pairs(scale: float = 1.0) -> np.ndarray:
        half = scale * (rng.normal(size=STATE // 2) + 1j * rng.normal(size=STATE // 2))
        return np.concatenate([half, half.conj()])

    eigenvalues = pairs(3.0)
    eigenvalues = -np.abs(eigenvalues.real) + 1j * eigenvalues.imag
    low_rank, inputs, readout, step = pairs(), pairs(), pairs(), 0.07
    arguments = (eigenvalues, low_rank, low_rank, inputs[:, None], readout[None], step)
    found = {"eigenvalues": eigenvalues, "low_rank": low_rank, "input": inputs, "readout": readout, "step": step}
    # An odd length: this code divides by 1 + w, which is zero at the middle root of unity of an even one.
    found["kernel"] = conv_from_gen(K_gen_DPLR(*arguments), LENGTH - 1)
    found["powers"] = K_conv(*discrete_DPLR(*arguments, LENGTH - 1), LENGTH - 1)
    return {name: np.asarray(array) for name, array in found.items()}


ORACLES: dict[str, Callable[[], Arrays]] = {"s4": s4, "s4d": s4d, "h3": h3_variants, "annotated_s4": annotated_s4}


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ORACLES:
        raise SystemExit(f"usage: freeze_ssm.py {{{','.join(ORACLES)}}} CHECKOUT")
    prepare(sys.argv[2])
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"{sys.argv[1]}.npz"
    np.savez_compressed(file, **ORACLES[sys.argv[1]]())
    print(f"{file.name}: {file.stat().st_size:,} bytes")
