"""Tables as they come: what cannot be used is refused with a clear error or left out with its reason."""

import numpy as np
import pandas as pd
import pytest
from planted_tables import TRUTH, planted_table

from analysis.compute import fit_isoflop
from analysis.fit import FitError, fit, reasons_left_out, select
from analysis.laws import CHINCHILLA, find
from analysis.runs_table import complete
from analysis.sampling import Sampling
from analysis.tables.files import notes_of, read_file


def test_an_error_lists_a_few_of_many_columns():
    wide = planted_table().drop(columns="tokens").assign(**{f"setting_{i}": i for i in range(40)})
    with pytest.raises(FitError, match=r"missing column 'tokens' .*; present: .*, .* and \d\d others\. Fix: ") as error:
        select(CHINCHILLA, wide)
    assert "setting_20" not in str(error.value)


def test_mixed_dtypes_are_read_and_what_is_no_number_is_left_out():
    table = planted_table()
    table["loss_nats"] = table["loss_nats"].astype(object)
    table.loc[0, "loss_nats"] = "2.75"
    table.loc[1, "loss_nats"] = "diverged"
    table.loc[2, "loss_nats"] = None
    table["tokens"] = table["tokens"].round().astype("Int64")
    table.loc[3, "tokens"] = pd.NA
    table["params"] = table["params"].astype("float32")
    points, left_out = select(CHINCHILLA, table)
    assert {item.run: item.reason for item in left_out} == {
        "run-1": "loss_nats = 'diverged' is not a number",
        "run-2": "loss_nats is missing or NaN",
        "run-3": "tokens is missing or NaN",
    }
    assert points.output[0] == 2.75 and points.output.dtype == np.float64
    assert points.runs[:2] == ("run-0", "run-4") and list(points.rows[:2]) == [0, 4]


def test_a_word_that_was_read_as_missing_is_named_where_its_row_is_left_out(tmp_path):
    """In a table that was completed, cut and read again; the row beside it that holds nothing stays without a word."""
    table = planted_table().astype({"loss_nats": object, "budget_flops": object})
    table.loc[[4, 6], "loss_nats"] = "diverged", None
    table.loc[8, "budget_flops"] = "unknown"
    read = complete(table, ("loss_nats",))[2:]
    read.to_parquet(tmp_path / "runs.parquet")
    for again in (read, read.sample(frac=1.0, random_state=0), read_file(tmp_path / "runs.parquet")):
        _, left_out = select(CHINCHILLA, again)
        assert {item.run: item.reason for item in left_out} == {
            "run-4": "loss_nats = 'diverged' is not a number",
            "run-6": "loss_nats is missing or NaN",
        }
        assert any("loss_nats = 'diverged' in row 4" in note for note in notes_of(complete(again)))
    (unbudgeted,) = fit_isoflop(read, sampling=Sampling(20)).left_out
    assert (unbudgeted.run, unbudgeted.reason) == ("run-8", "budget_flops = 'unknown' is not a number")


@pytest.mark.parametrize("value, text", [(np.inf, "inf"), (-np.inf, "-inf"), (0.0, "0"), (-3.0, "-3")])
def test_values_that_have_no_logarithm_are_left_out(value, text):
    table = planted_table()
    table.loc[4, "tokens"] = value
    _, left_out = select(CHINCHILLA, table)
    assert [(item.run, item.reason) for item in left_out] == [("run-4", f"tokens = {text} is not positive and finite")]


def test_other_columns_may_hold_anything():
    table = planted_table().rename(columns={"experiment": "实验 ñ"})
    table["notes"] = [[i, {"a": None}] for i in range(17)] + [[16, {"a": None}]]
    table[("a", 1)] = np.array(["x"] * 18, dtype=object)
    copy = table.iloc[[5]].assign(run="again")
    _, left_out = select(CHINCHILLA, pd.concat([table, copy], ignore_index=True))
    assert [(item.run, item.reason) for item in left_out] == [("again", "exact copy of an earlier row")]


def test_copies_are_the_rows_that_pandas_calls_duplicated():
    """Of few values in each column, one of them missing: many rows are alone in one column and not in another."""
    generator = np.random.default_rng(0)
    names = {"params": [1e8, 2e8, 3e8, np.nan], "tokens": [1e9, 2e9], "seed": [0, 1], "note": ["a", "b", None]}
    table = pd.DataFrame({name: generator.choice(np.array(values, object), 200) for name, values in names.items()})
    table = complete(table.assign(loss_nats=generator.integers(2, 20, 200) / 4.0))
    reasons = reasons_left_out(table, {})
    copies = table.drop(columns="run").duplicated().to_numpy()
    np.testing.assert_array_equal(reasons == "exact copy of an earlier row", copies)
    assert 20 < copies.sum() < 180


def test_a_table_without_names_or_a_default_index_is_fitted_as_it_is():
    table = planted_table(noise=0.0)[["params", "tokens", "loss_nats"]]
    shuffled = table.sample(frac=1.0, random_state=0).set_index(pd.Index(["same"] * 18))
    assert fit(CHINCHILLA, shuffled).values == pytest.approx(TRUTH, rel=1e-7)


def test_a_column_that_is_there_twice_is_refused():
    table = planted_table()
    twice = pd.concat([table, table[["loss_nats"]] + 1], axis=1)
    with pytest.raises(FitError, match="column 'loss_nats' is there 2 times. Fix: keep one of them"):
        fit(CHINCHILLA, twice)


def test_a_table_of_zero_rows_or_of_failures_names_why():
    with pytest.raises(FitError, match="points = 0: law 'chinchilla' has 5 parameters and needs at least 6"):
        fit(CHINCHILLA, planted_table()[:0])
    with pytest.raises(
        FitError, match="points = 0: .*left out: run-0: loss_nats is missing or NaN; run-1.*; and 13 more"
    ):
        fit(CHINCHILLA, planted_table().assign(loss_nats=np.nan))


def test_losses_that_are_all_equal_are_nothing_to_fit():
    with pytest.raises(FitError, match="loss_nats = 2.5 in all 18 usable points: .* map the column that was measured"):
        fit(CHINCHILLA, planted_table().assign(loss_nats=2.5))


def test_an_input_may_be_zero_only_where_the_law_says_so():
    law = find("annealing")
    table = pd.DataFrame({"schedule_area": [1.0, 2.0], "annealing_area": [0.0, -1.0], "loss_nats": [3.0, 2.9]})
    points, left_out = select(law, complete(table))
    assert len(points.runs) == 1 and left_out[0].reason == "annealing_area = -1 is not finite and at least zero"
    _, left_out = select(law, complete(table.assign(schedule_area=0.0)))
    assert left_out[0].reason == "schedule_area = 0 is not positive and finite"


def test_a_row_without_a_status_is_left_out_and_named():
    table = planted_table().astype({"status": "string"})
    table.loc[3, "status"] = pd.NA
    points, left_out = select(CHINCHILLA, table)
    assert [(item.run, item.reason) for item in left_out] == [("run-3", "status unknown")]
    assert "run-3" not in points.runs
