"""The account of where a plan's time went."""

import json

import numpy as np
import pandas as pd

from research.runs import PHASES, timings


def test_account_of_time(tmp_path):
    path = tmp_path / "timings.jsonl"
    with timings.phase(path, "sweep") as notes:
        notes.update(workers=2, worker_start_seconds=3.0, runs=["a", "b", "c"])
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "seconds": 20.0}) + "\n")
    phases = {f"{name}_seconds": [1.0, 2.0, np.nan, 4.0] for name in PHASES}
    rates = {
        "flops": [3e10, 5e10, 9e99, 9e99],
        "executed_flops": [4e10, 6e10, np.nan, 9e99],
        "matmul_flops_per_second": [1e10, 2e10, np.nan, 1e10],
    }
    # d is done, but in the sweep of another plan
    table = pd.DataFrame({"run": [*"abcd"], "status": ["done", "done", "failed", "done"], **rates, **phases})
    account = timings.account(path, table)
    assert account["wall_seconds"] == 20.0 and account["run_seconds"] == 40.0  # two workers
    assert account["phase_seconds"] == {**dict.fromkeys(PHASES, 3.0), "start": 6.0}
    assert account["model_flops"] == 8e10 and account["executed_flops"] == 1e11
    assert account["ideal_share"] == (4 + 3) / 40
    # Two workers, each at the rate that executes all of 1e11 FLOPs in 4 + 3 seconds.
    np.testing.assert_allclose(account["matmul_flops_per_second"], 2 * 1e11 / 7)
    assert timings.account(path, table[table["status"] == "failed"]) is None
