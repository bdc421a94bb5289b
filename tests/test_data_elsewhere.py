"""A token file made on one machine trains on another that has neither tensorflow nor the packages of the corpus."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from data_fixtures import write_corpus

from research.data.prepare import prepare
from research.plan import load

ROOT = Path(__file__).parents[1]
ABSENT = ("tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio", "sentencepiece", "keras")
# The smallest run of either needs .05 and .73 million tokens; the corpus of this test holds no 16 million.
EXPERIMENTS = {"smoke": [], "isoflop_transformer": ["base.data.train_tokens=740000", "base.training.max_epochs=1000"]}
TRAIN = """
import json
import sys
from pathlib import Path

from research.data.prepare import prepare
from research.execution.trainer import train_runs
from research.plan import load, run_cost
from research.runs import open_run

for name, assignments in json.loads(sys.argv[1]).items():
    runs = load(Path("experiments", f"{name}.py"), assignments).runs()
    config = min(runs, key=lambda config: run_cost(config).params)
    prepare(config.data, report=lambda line: None)
    folder = open_run(Path(sys.argv[2]), config)
    assert train_runs([(config, folder)], lambda folder, step, loss: None, lambda: False) == ["done"]
    print(folder.path, folder.result()["loss_nats"])
"""


@pytest.mark.slow
def test_smoke_and_the_smallest_run_of_the_demo_train_without_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))
    roots = write_corpus(tmp_path / "corpus", modules=600)
    for name, assignments in EXPERIMENTS.items():
        (data,) = {run.data for run in load(ROOT / "experiments" / f"{name}.py", assignments).runs()}
        prepare(data, lambda line: None, roots)
    absent = tmp_path / "absent"
    absent.mkdir()
    for package in ABSENT:
        (absent / f"{package}.py").write_text(f"raise ModuleNotFoundError('no {package} here', name='{package}')\n")
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, json.dumps(EXPERIMENTS), str(tmp_path / "runs")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(absent), str(ROOT)]), "XLA_FLAGS": ""},  # one device
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        folder, loss = line.split()
        assert 0 < float(loss) < 5.55  # ln(256): what knowing nothing costs
        assert json.loads(Path(folder, "text.json").read_text()).keys() == {
            f"{source}.{side}" for source in ("prose", "code") for side in ("train", "validation")
        }
    assert len(done.stdout.splitlines()) == 2
