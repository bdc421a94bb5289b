"""What keeping freed memory is worth: a small model's steps with glibc's defaults and runtime.configure's settings.

    taskset -c 0 .venv/bin/python tests/benchmarks/small_steps.py

Width 64, 4 layers, batch 16 x 128, on the cores given to it. The settings hold for a whole process, so each is timed in
processes of its own, in turn; printed: the best step of each, and their ratio.
"""

import subprocess
import sys
import time

PROCESSES, STEPS = 3, 15


def best_step_seconds(keep_freed_memory: bool) -> float:
    import jax
    import numpy as np

    from research.config import AttentionConfig, MlpConfig, ModelConfig, RunConfig, TrainingConfig
    from research.sharding import make_mesh
    from research.training import runtime
    from research.training.objective import language_modelling
    from research.training.step import make_program

    if keep_freed_memory:
        runtime._keep_freed_memory()
    config = RunConfig(
        model=ModelConfig(width=64, depth=4, attention=AttentionConfig(4, 4, 16), mlp=MlpConfig(168)),
        training=TrainingConfig(batch_size=16, sequence_length=128),
    )
    program = make_program(config, make_mesh(config.mesh), language_modelling(config))
    state = program.init()
    stream = np.random.default_rng(0).integers(0, 259, (16, 129)).astype(np.int32)
    batch = {"inputs": stream[:, :-1], "targets": stream[:, 1:], "weights": np.ones((16, 128), np.float32)}
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        state, metrics = program.train(state, batch, program.numbers)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def main() -> None:
    best = {"default": float("inf"), "kept": float("inf")}
    for _ in range(PROCESSES):
        for name in best:
            output = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True).stdout
            best[name] = min(best[name], float(output))
    print(
        f"step with glibc's defaults {best['default'] * 1e3:.1f} ms, "
        f"with freed memory kept {best['kept'] * 1e3:.1f} ms, ratio {best['default'] / best['kept']:.2f}"
    )


if __name__ == "__main__":
    if sys.argv[1:]:
        print(best_step_seconds(sys.argv[1] == "kept"))
    else:
        main()
