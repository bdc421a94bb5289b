"""One architecture on one mesh of virtual devices against one device: the first step's loss and gradients, and how much
of the work each device does, read from the compiled step."""

import math
from dataclasses import dataclass, replace
from functools import cache

import jax
import numpy as np
import optax
from mesh_traffic import least_bytes, traffic_bytes
from synthetic_tokens import VOCAB, synthetic_examples, tiny_run

from research.config import (
    AdamWConfig,
    AttentionConfig,
    ConfigError,
    EvaluationConfig,
    H3Config,
    LatentAttentionConfig,
    Mamba2Config,
    MambaConfig,
    MeshConfig,
    MlpConfig,
    ModelConfig,
    MoeConfig,
    RunConfig,
    Rwkv7Config,
    S4Config,
    TaskConfig,
)
from research.data.synthetic import task_examples
from research.models.state_spaces.ssm_kernel import fft_flops
from research.sharding import make_mesh
from research.training.compiled import compiled
from research.training.hlo_cost import HloCost
from research.training.objective import language_modelling
from research.training.step import make_program

WIDTH, LENGTH, BATCH = 64, 64, 16
MODEL = ModelConfig(
    vocab_size=VOCAB,
    width=WIDTH,
    depth=2,
    attention=AttentionConfig(4, 4, 16),
    latent_attention=LatentAttentionConfig(4, 16, 8, 16, 32),
    mlp=MlpConfig(128),
    mamba=MambaConfig(chunk=16),  # a device of sequence4 holds one chunk
    mamba2=Mamba2Config(16, head_dim=16, chunk=16),
    # Steps as long as for a kernel of a thousand: with short ones, C follows from a division by nearly nothing, and the
    # gradients carry more rounding.
    s4=S4Config(state_size=16, kernel_length=LENGTH, dt_min=0.05, dt_max=0.5),
    h3=H3Config(state_size=16),
    rwkv7=Rwkv7Config(16, chunk=16),
)


def _experts(algorithm: str) -> dict:
    return {"pattern": "attention:moe", "moe": MoeConfig(4, 2, 64, capacity_factor=2.0, algorithm=algorithm)}


ARCHITECTURES: dict[str, dict] = {  # name -> what it changes of MODEL
    "transformer": {"pattern": "attention:mlp"},
    "transformer_scan_remat": {"pattern": "attention:mlp", "scan_layers": True, "remat": "full"},
    "moe_dense": _experts("dense"),
    "moe_capacity": _experts("capacity"),
    "moe_ragged": _experts("ragged"),
    "latent_attention": {"pattern": "latent_attention:mlp"},
    "mamba": {"pattern": "mamba"},
    "mamba2": {"pattern": "mamba2"},
    "rwkv4": {"pattern": "rwkv4_time:rwkv4_channel"},
    "rwkv7": {"pattern": "rwkv7_first:rwkv7_channel | rwkv7_time:rwkv7_channel"},
    "s4": {"pattern": "s4:mlp"},
    "s4d": {"pattern": "s4:mlp", "s4": replace(MODEL.s4, kernel="diagonal")},
    "h3": {"pattern": "h3:mlp"},
    "lstm": {"pattern": "lstm:mlp"},
    "gru": {"pattern": "gru:mlp"},
    "jamba": {
        "pattern": "mamba:mlp, mamba:moe, attention:mlp, mamba:moe",
        "depth": 4,
        "moe": _experts("capacity")["moe"],
    },
    "t5": {
        "pattern": "attention:mlp -> attention, cross_attention:mlp",
        "attention": replace(MODEL.attention, positions="buckets"),
        "depth": 4,
        "encoder_depth": 2,
    },
    "lstm_additive": {"pattern": "lstm -> lstm_additive"},
}
MESHES: dict[str, dict[str, int]] = {
    "data8": {"data": 8},
    "fsdp8": {"fsdp": 8},
    "tensor4": {"tensor": 4},
    "expert4": {"expert": 4},
    "sequence4": {"sequence": 4},
    "data2 fsdp2 tensor2": {"data": 2, "fsdp": 2, "tensor": 2},
    "fsdp2 tensor2 expert2": {"fsdp": 2, "tensor": 2, "expert": 2},
    "fsdp2 tensor2 sequence2": {"fsdp": 2, "tensor": 2, "sequence": 2},
}
MOST_LOSS, MOST_GRADIENT, MOST_PRODUCTS = 1e-6, 1e-5, 1.1  # of a cell that works
# On one device, too, float32 gradients of the step of the dplr kernel are off by 3e-5 from those in float64.
ROUNDING = {"s4": 1e-4}
MOST_TRAFFIC = 1.5
CONVOLUTIONS = {"s4": 1, "s4d": 1, "h3": 2}  # by transform, of each channel of each layer
MOST_OTHERS = 1.25  # what is fused, and so computed again, differs from program to program by a tenth or two


@dataclass(frozen=True)
class Cell:
    """One architecture on one mesh, which has exactly as many devices as it needs.

    loss, gradient: relative to one device's, the latter the worst entry of any leaf relative to the leaf's largest.
    products, others: a device's matrix products over its share of one device's, and the same of its transcendental
    functions or, of convolutions, its transforms over its share (_share_of_transforms), without the functions of which
    kernels are made; bounds from neither side where a loop's length is unknown.
    traffic: the bytes of a device's collectives over the least of the mesh (mesh_traffic.py).
    """

    loss: float
    gradient: float
    products: float
    others: float
    unknown_loops: int
    traffic: float
    replications: int  # "Involuntary full rematerialization"
    most_gradient: float = MOST_GRADIENT

    @property
    def faults(self) -> tuple[str, ...]:
        """What keeps the cell from working; empty if it does."""
        found = {
            f"loss off by {self.loss:.0e}": not self.loss <= MOST_LOSS,
            f"gradient off by {self.gradient:.0e}": not self.gradient <= self.most_gradient,
            f"{self.products:.2f} times its share of matrix products": self.products > MOST_PRODUCTS,
            f"{self.others:.2f} times its share of other work": self.others > MOST_OTHERS,
            f"{self.traffic:.1f} times the least traffic": self.traffic > MOST_TRAFFIC,
            f"{self.unknown_loops} loops of unknown length": self.unknown_loops > 0,
            f"{self.replications} involuntary full rematerializations": self.replications > 0,
        }
        return tuple(fault for fault, there in found.items() if there)


def run_of(architecture: str) -> RunConfig:
    """The run whose first step is compared. Without momentum and clipping, AdamW's first moment is the gradient."""
    base = tiny_run(steps=2, batch_size=BATCH, sequence_length=LENGTH)
    changed = ARCHITECTURES[architecture]
    optimizer = AdamWConfig(beta1=0.0, clip_norm=None)
    if "->" not in changed["pattern"]:
        return replace(base, model=replace(MODEL, **changed), optimizer=optimizer)
    task = TaskConfig("copy", lengths=(8, LENGTH - 1), evaluated=(8,))
    model = replace(MODEL, source_length=LENGTH - 1, **changed)
    evaluation = EvaluationConfig(tokens=LENGTH, batch_size=8)
    return replace(base, model=model, optimizer=optimizer, task=task, evaluation=evaluation)


def cell(architecture: str, mesh: str) -> Cell:
    """Compile and run it. Raises ConfigError where the mesh is refused; anything else raised is a fault."""
    reference = _on_one_device(architecture)
    found = _first_step(architecture, MeshConfig(**{"data": 1, **MESHES[mesh]}), reference.start)
    devices = math.prod(MESHES[mesh].values())

    differences = jax.tree.leaves(jax.tree.map(_difference, found.gradient, reference.gradient))

    def over_share(count: str) -> float:
        whole = getattr(reference.cost, count)
        return devices * getattr(found.cost, count) / whole if whole else 0.0

    if architecture in CONVOLUTIONS:
        share = _share_of_transforms(architecture, MESHES[mesh], reference.cost.fft_flops)
        others = found.cost.fft_flops / share
    else:
        others = over_share("transcendentals")
    return Cell(
        loss=abs(found.loss - reference.loss) / abs(reference.loss),
        gradient=float(np.max(differences)),
        products=over_share("matmul_flops"),
        others=others,
        unknown_loops=len(found.cost.unknown_loops),
        traffic=traffic_bytes(found.cost.collective_bytes) / least_bytes(run_of(architecture), MESHES[mesh]),
        replications=found.replications,
        most_gradient=ROUNDING.get(architecture, MOST_GRADIENT),
    )


def _share_of_transforms(architecture: str, mesh: dict[str, int], whole: int) -> float:
    """A device's FLOPs of transforms: of its sequences, and of the kernels of its channels, which it makes however few
    sequences it has. Each channel of a sequence is transformed and back, and so is its gradient."""
    run = run_of(architecture)
    channels = CONVOLUTIONS[architecture] * run.model.depth * run.model.width
    of_sequences = BATCH * channels * 4 * fft_flops(2 * LENGTH)
    assert 0 < whole - of_sequences < of_sequences / 8, "each kernel is made once for all sequences"
    split = mesh.get("tensor", 1) * mesh.get("sequence", 1)  # a convolution takes whole sequences: channels are split
    return of_sequences / math.prod(mesh.values()) + (whole - of_sequences) / split


def outcome(architecture: str, mesh: str) -> Cell | str:
    """The cell, or why there is none: "refused: ..." in our own words, "error: ..." in anyone else's."""
    try:
        return cell(architecture, mesh)
    except ConfigError as error:
        return f"refused: {error}"
    except Exception as error:  # whatever jax or XLA raises is this cell's fault to report, and the others go on
        return f"error: {type(error).__name__}: {str(error).strip().splitlines()[0]}"


@dataclass(frozen=True)
class _Step:
    start: object  # the state before it, on the host
    loss: float
    gradient: object
    cost: HloCost
    replications: int


@cache
def _on_one_device(architecture: str) -> _Step:
    return _first_step(architecture, MeshConfig(data=1), None)


def _first_step(architecture: str, mesh_config: MeshConfig, start: object) -> _Step:
    """The run's first step from `start`, drawn where that is None (tests/test_sharding.py: on any mesh the same)."""
    config = run_of(architecture)
    mesh = make_mesh(mesh_config, jax.devices()[: math.prod(vars(mesh_config).values())])
    examples = synthetic_examples(config) if config.task is None else task_examples(config)
    batch = examples.batch(0, 0, 1)
    with jax.set_mesh(mesh):
        program = make_program(config, mesh, language_modelling(config))
        if start is None:
            start = jax.device_get(program.init())
        step = compiled(program.train.lower(program.abstract_state, batch, program.numbers))
        placed = jax.device_put(start, jax.tree.map(lambda leaf: leaf.sharding, program.abstract_state))
        state, metrics = step.executable(placed, batch, program.numbers)
        gradient = jax.device_get(optax.tree.get(state.moments, "mu"))
        return _Step(start, float(metrics["loss_nats"]), gradient, step.cost, step.replications)


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference relative to the largest entry; a gradient that is zero must be zero."""
    largest, difference = float(np.max(np.abs(expected))), float(np.max(np.abs(found - expected)))
    return difference / largest if largest > 0 else (0.0 if difference == 0 else math.inf)
