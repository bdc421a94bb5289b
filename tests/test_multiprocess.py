"""Two processes of four devices each are one run of eight: the same batches, the same losses."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.multiprocess

SCRIPT = """
import sys
coordinator, processes, index, devices = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
import jax
jax.config.update("jax_num_cpu_devices", devices)
if processes > 1:
    jax.distributed.initialize(coordinator, processes, index)
from synthetic_tokens import synthetic_examples, tiny_run
from research.config import MeshConfig
from research.sharding import make_mesh
from research.training.feed import global_batch
from research.training.objective import language_modelling
from research.training.step import make_program
config = tiny_run()
examples = synthetic_examples(config)
mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
with jax.set_mesh(mesh):
    program = make_program(config, mesh, language_modelling(config))
    state = program.init()
    for step in range(20):
        batch = global_batch(config, examples, step, program.batch_sharding)
        state, measured = program.train(state, batch, program.numbers)
        if index == 0:
            print("loss", float(measured["loss_nats"]).hex(), flush=True)
"""


def _losses(processes: int, tmp_path) -> list[float]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    here = Path(__file__).parent
    environment = {"PYTHONPATH": f"{here}:{here.parent}", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, coordinator, str(processes), str(index), str(8 // processes)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for index in range(processes)
    ]
    outputs = [process.communicate(timeout=300) for process in started]
    assert all(process.returncode == 0 for process in started), outputs
    lines = [line.split() for line in outputs[0][0].splitlines()]  # gloo prints some of its own
    return [float.fromhex(words[1]) for words in lines if words[0] == "loss"]


def test_two_processes_equal_one(tmp_path):
    one, two = _losses(1, tmp_path), _losses(2, tmp_path)
    assert len(one) == 20
    # The same program on the same mesh; only the collectives' transport differs, whose sums may be ordered otherwise.
    np.testing.assert_allclose(two, one, rtol=1e-6)
