"""What `plan` and `status` print: rows that can be told apart, and numbers that are whole."""

import io
from dataclasses import replace

from rich.console import Console

from research.command.tables import plan_table, status_table
from research.command.text_table import Column, TextTable, print_table
from research.config import AdamWConfig, ModelConfig, RunConfig, TrainingConfig, distinct_labels, run_name
from research.plan import select
from research.runs import open_run

BASE = RunConfig(experiment="exp", model=ModelConfig(width=64, depth=1, pattern="lstm"))


def rates(*values: float) -> list[RunConfig]:
    return [replace(BASE, optimizer=AdamWConfig(learning_rate=value)) for value in values]


def printed(table: TextTable, **console: object) -> str:
    file = io.StringIO()
    print_table(table, Console(file=file, **console))
    return file.getvalue()


def test_runs_of_one_label_are_told_apart_by_what_differs():
    other = replace(BASE, training=TrainingConfig(seed=1))
    swept = distinct_labels([*rates(1e-3, 3e-3), other])
    assert swept == [f"transformer-w64-d1-seed0-learning_rate={rate}" for rate in ("0.001", "0.003")] + [
        "transformer-w64-d1-seed1"
    ]
    assert distinct_labels(rates(1e-3, 1.0004e-3))[1].endswith("-learning_rate=0.0010004")
    both = replace(rates(3e-3)[0], training=TrainingConfig(steps=7))
    assert distinct_labels([*rates(1e-3), both])[1].endswith("-learning_rate=0.003-steps=7")
    cut = replace(BASE, data=replace(BASE.data, sources=BASE.data.sources[:1]))
    assert distinct_labels([BASE, cut]) == [run_name(BASE), run_name(cut)]  # a source takes too much room


def test_status_prints_labels_that_only_takes(tmp_path):
    configs = rates(1e-3, 3e-3)
    open_run(tmp_path, configs[1]).write_failure(3, "loss_nats = nan\nat step 3")
    text = printed(status_table(configs, tmp_path), width=60)
    first, second = [line for line in text.splitlines() if line.startswith("transformer")]
    assert first.split()[1:] == ["pending", "0/100"]
    assert second.split()[1:3] == ["failed", "0/100"] and second.endswith("  loss_nats = nan at step 3")
    assert "0 of 2 runs done" in text
    assert select(configs, "transformer-w64-d1-seed0-learning_rate=0.003") == configs[1:]
    assert select(configs, "transformer-w64-d1-seed0") == configs


def test_plan_adds_the_fields_that_tell_rows_apart():
    decays = [replace(BASE, optimizer=AdamWConfig(weight_decay=value)) for value in (0.1, 0.2)]
    lines = printed(plan_table(decays, "title", 1e10)).splitlines()
    assert lines[1].endswith("cost") and lines[2].endswith("FLOPs  weight_decay")
    assert [line.split()[-1] for line in lines[4:6]] == ["0.1", "0.2"]
    assert "weight_decay" not in printed(plan_table(rates(1e-3, 3e-3), "title", None))


def test_a_pipe_gets_every_character_and_a_terminal_whole_numbers():
    table = TextTable((Column("name", is_number=False, may_be_cut=True), Column("n")), (("x" * 90, "1234567890"), None))
    assert f"{'x' * 90}  1234567890\n" in printed(table, width=40)
    assert f"{'x' * 27}…  1234567890\n" in printed(table, width=40, force_terminal=True, color_system=None)


def test_styles_reach_a_terminal_alone():
    table = TextTable((Column("status", is_number=False),), ((("done", "green"),),))
    assert "\x1b[32mdone\x1b[0m" in printed(table, force_terminal=True, color_system="standard")
    assert "\x1b" not in printed(table)
