import bz2
import gzip
import io
import lzma
import zipfile

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from planted_tables import planted_table

from analysis.runs_table import (
    COLUMNS,
    REQUIRED,
    TableError,
    adopt,
    complete,
    read,
    read_file,
    schema_markdown,
    validate,
    write,
)
from analysis.tables.files import notes_of


def test_csv_and_parquet_hold_the_same_table(tmp_path):
    table = planted_table()
    table["failure_step"] = pd.array([None] * 17 + [12], dtype="Int64")
    table["failure_reason"] = [None] * 17 + ["loss is nan"]
    table["loss_nats_prose"] = table["loss_nats"] + 0.1
    table["notes"] = "kept as it is"
    csv_path, parquet_path = write(table, tmp_path / "deep" / "runs")
    from_csv, from_parquet = read(csv_path), read(parquet_path)
    # pandas parses decimal text to within one unit in the last place, 2.2e-16 relative; Parquet holds the bits.
    pd.testing.assert_frame_equal(
        from_csv[list(COLUMN_NAMES & set(table))], from_parquet[list(COLUMN_NAMES & set(table))], rtol=4.5e-16, atol=0
    )
    np.testing.assert_array_equal(from_parquet["loss_nats"], table["loss_nats"])
    assert from_parquet["failure_step"].dtype == "Int64" and from_csv["failure_step"].iloc[-1] == 12
    assert from_csv["loss_nats_prose"].dtype == "float64" and set(from_csv["notes"]) == {"kept as it is"}
    assert not list((tmp_path / "deep").glob("*.tmp"))


def test_a_write_that_is_refused_leaves_the_old_file(tmp_path):
    write(planted_table(), tmp_path / "runs")
    before = (tmp_path / "runs.csv").read_bytes()
    with pytest.raises(TableError):
        write(planted_table().drop(columns="params"), tmp_path / "runs")
    assert (tmp_path / "runs.csv").read_bytes() == before


def test_missing_columns_are_named_with_those_present_and_the_fix():
    table = planted_table().rename(columns={"params": "n_params", "loss_nats": "val"})
    with pytest.raises(TableError, match="missing columns 'params', 'loss_nats'; present: .*n_params.*Fix: add") as e:
        validate(table)
    assert "--column params=YOURS loss_nats=YOURS (perhaps 'n_params' for 'params')" in str(e.value)


def test_a_column_under_its_own_name_is_never_taken_for_another():
    """The table has tokens and params: neither is offered as unique_tokens, nor is either of them to be added."""
    with pytest.raises(TableError, match="missing column 'unique_tokens'.*=YOURS.$"):
        complete(planted_table(), ("params", "tokens", "unique_tokens"))
    columns = {"params": "parms", "tokens": "tokens", "loss_nats": "loss_nats"}
    with pytest.raises(TableError, match="leave --column params=parms out, since the table has 'params', or name") as e:
        adopt(planted_table(), columns)
    assert "add" not in str(e.value).split("Fix: ")[1]


def test_the_nearest_of_many_columns_are_named_and_the_others_counted():
    wide = planted_table().rename(columns={"loss_nats": "val_loss"}).assign(**{f"setting_{i}": i for i in range(40)})
    with pytest.raises(TableError, match=rf"present: val_loss, .* and {wide.shape[1] - 5} others\. Fix: "):
        complete(wide, ("params", "loss_nats"))
    # Without quotes it would seem to be there.
    with pytest.raises(TableError, match="present: 'params ', tokens. Fix"):
        complete(pd.DataFrame({"params ": [1e6], "tokens": [1e8]}), ("params", "tokens"))


def test_a_parquet_file_that_has_a_column_twice_is_refused_like_text(tmp_path):
    columns = [pyarrow.array([1e6]), pyarrow.array([2e6]), pyarrow.array([1e8])]
    pyarrow.parquet.write_table(pyarrow.table(columns, names=["params", "params", "tokens"]), tmp_path / "runs.parquet")
    with pytest.raises(TableError, match="column 'params' is there 2 times. Fix: keep one of them.$"):
        read_file(tmp_path / "runs.parquet")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("loss_nats", "low", r"loss_nats = 'low' in row 3: must be a number"),
        ("held_out", "maybe", r"held_out = 'maybe': must be true or false"),
        ("status", "finished", r"status = 'finished': must be one of pending"),
        ("seed", 0.5, r"seed = 0.5: must be whole"),
        ("run", "run-0", r"run = 'run-0': stands in more than one row"),
    ],
)
def test_wrong_values_are_named(column, value, message):
    table = planted_table().astype({column: "object"})
    table.loc[3, column] = value
    with pytest.raises(TableError, match=message):
        validate(table)


def _zipped(text, *names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names or ("runs.csv", "__MACOSX/._runs.csv"):
            archive.writestr(zipfile.ZipInfo(name), text)  # of 1980, not of now: bytes are part of a test's name
    return buffer.getvalue()


WRITTEN = "N,loss,note\n1500000,3.25,plain\n20000000,3.125,\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.csv", None, "no such file"),
        ("runs.xlsx", b"x", r"must be .csv, .tsv, .txt \(also .gz, .bz2, .xz or .zip\) or .parquet"),
        ("empty.csv", b"", "is empty. Fix: write a header line"),
        ("binary.csv", b"a,b\n1,\0\xff\n", "holds zero bytes and is no text, or UTF-16 without its mark"),
        ("utf16.csv", "a,b\n1,2\n".encode("utf-16")[:-1], "is damaged .truncated data"),
        ("shifted.csv", b"a,b\n1,2,3\n4,5,6\n", "header has names for 2 of the 3 fields of a row. Fix: name every"),
        ("trailing.csv", b"a,b\n1,2,\n4,5,\n", "names for 2 of the 3 fields of a row. Fix: .*end no row with"),
        ("wide.csv", b"a,b\n1,2,3,4\n", "names for 2 of the 4 fields"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n", r"line 3 has 3 fields, and the header names 2\. Fix: write 2"),
        ("open.csv", b'a,b\n1,2\n"1,2\n', r"a quote that is opened in row 2 is not closed\. Fix: close it"),
        (
            "colons.csv",
            b"params:tokens:loss\n1:2:3\n",
            "is one name, 'params:tokens:loss': .*comma, semicolon, tab, bar",
        ),
        ("uneven.csv", b"params tokens\n1 2\n1 2 3\n", "is one name, 'params tokens': .* blanks. Fix: write one"),
        (
            "two.csv.zip",
            _zipped(WRITTEN, "a.csv", "b.tsv"),
            "holds 2 tables, a.csv, b.tsv, and one is read. Fix: unpack",
        ),
        ("none.csv.zip", _zipped(WRITTEN, "read.me"), "holds no .csv, .tsv, .txt but read.me. Fix: give a table's own"),
        ("twice.csv", b"loss,a,loss\n1,2,3\n", "column 'loss' is there 2 times. Fix: keep one of them"),
        ("twice.csv.gz", gzip.compress(b'"a","a"\n1,2\n', mtime=0), "column 'a' is there 2 times"),
        ("wide.tsv", b"a\tb\n1\t2\t3\t4\n", "names for 2 of the 4 fields"),
        ("folder.csv", None, "is a folder. Fix: give the path of a .csv"),
        (f"{'long' * 99}.csv", None, "no such file"),
        ("half.csv.gz", gzip.compress(b"a,b\n1,2\n" * 99, mtime=0)[:-20], "is damaged .*Fix: copy or write it again"),
        ("flipped.csv.gz", b"\x1f\x8b\x08\x00" + bytes(6) + b"\xff" * 40, "is damaged .*Fix"),
        ("half.csv.xz", lzma.compress(b"a,b\n1,2\n" * 99)[:-20], "is damaged .*Fix"),
        ("half.csv.bz2", bz2.compress(b"a,b\n1,2\n" * 99)[:-20], "is damaged .*Fix"),
        ("plain.csv.zip", b"a,b\n1,2\n", "is damaged .*Fix"),
        ("plain.csv.gz", b"a,b\n1,2\n", "is damaged .*Fix"),
        ("text.parquet", b"a,b\n1,2\n", "is no readable Parquet file .*Fix"),
        ("empty.parquet", b"", "is no readable Parquet file .*Fix"),
    ],
)
def test_unreadable_files(tmp_path, name, content, message):
    (tmp_path / "folder.csv").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("RUNS.CSV", WRITTEN.encode()),
        ("RUNS.CSV.GZ", gzip.compress(WRITTEN.encode(), mtime=0)),
        ("runs.csv.bz2", bz2.compress(WRITTEN.encode())),
        ("runs.txt.xz", lzma.compress(WRITTEN.encode())),
        ("runs.csv.zip", _zipped(WRITTEN)),
        ("runs.zip", _zipped(WRITTEN)),
        ("runs.tsv", WRITTEN.replace(",", "\t").encode()),
        ("runs.csv", WRITTEN.replace(",", ";").replace("\n", "\r\n").encode("utf-8-sig")),
        ("runs.csv", WRITTEN.replace(",", "|").encode("utf-16")),
        ("runs.csv", WRITTEN.replace(",", ", ").encode()),
        ("runs.csv", WRITTEN.replace(",", ";").replace(".", ",").encode()),
        ("runs.csv", b'N,loss,note\n"1,500,000",3.25,plain\n"20,000,000",3.125,\n'),
        ("runs.csv", b'N;loss;note\n1.500.000;"3,25";plain\n20.000.000;3,125;\n'),
        ("runs.csv", b'N,loss,note\n1500000,"3,25",plain\n20000000,"3,125",\n'),
        ("runs.tsv", b"N\tloss\tnote\n1,500,000\t3.25\tplain\n20,000,000\t3.125\t\n"),
    ],
)
def test_one_table_in_any_writing_is_read_alike(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    table = read_file(tmp_path / name)
    assert list(table["N"]) == [1.5e6, 2e7] and list(table["loss"]) == [3.25, 3.125] and not notes_of(table)
    assert list(table["note"].fillna("none")) == ["plain", "none"]


def test_fields_that_blanks_part_are_read(tmp_path):
    (tmp_path / "runs.txt").write_text("  N   loss\n 1.5e6 3.25\n2e7    3.125 \n\n")
    table = read_file(tmp_path / "runs.txt")
    assert (
        list(table.columns) == ["N", "loss"]
        and list(table["N"]) == [1.5e6, 2e7]
        and list(table["loss"]) == [3.25, 3.125]
    )


def test_text_that_is_not_unicode_is_read_and_said(tmp_path):
    (tmp_path / "runs.csv").write_bytes("a,b\nmod\u00e8le,1\n".encode("latin1"))
    table = read_file(tmp_path / "runs.csv")
    assert table["a"][0] == "mod\u00e8le" and notes_of(complete(table)) == (
        "table 'runs.csv': is not UTF-8; its text was read as Latin-1",
    )


@pytest.mark.parametrize(
    ("content", "mark", "sizes"),
    [
        # Nothing in the file tells thousands from decimals, or it says both.
        ('N,loss\n"1,234",3\n"12,345",2\n', "", None),
        ("N;x\n1,234;0.001\n12,345;0.01\n", "", None),
        ('N,loss\n1234,"3,9"\n12345,3.9\n"1,234",2\n', "", None),
        ('N,loss\n"1,234",3\n"12,345",2\n', ".", [1234, 12345]),
        ('N,loss\n"1,234",3\n"12,345",2\n', ",", [1.234, 12.345]),
        ("N;loss\n1.234;3\n12.345;2\n", ",", [1234, 12345]),
        # The other column has the mark, which is said.
        ('N,loss\n"1,234",3.91\n"12,345",2.9\n', "", [1234, 12345]),
        ("N;loss\n1.234;3,91\n12.345;2,9\n", "", [1234, 12345]),
        ("N;loss\n1,234;3\n12,345;2\n", "", [1.234, 12.345]),
    ],
)
def test_a_comma_that_may_part_thousands_or_decimals_is_never_guessed(tmp_path, content, mark, sizes):
    (tmp_path / "runs.csv").write_text(content)
    table = read_file(tmp_path / "runs.csv", mark)
    if sizes is None:
        with pytest.raises(TableError, match=r"params = '1?,?.*' in row .: .* whether its comma .* --decimal , or"):
            adopt(table, {"params": "N"}, ())
        adopt(table.drop(columns="N"), {}, ())  # no fit that does not read it minds
    else:
        assert list(table["N"]) == sizes and bool(notes_of(table)) == (not mark)


def test_words_among_numbers_are_missing_values_and_said():
    frame = pd.DataFrame({"params": [1e6, 2e6, 3e6, 4e6], "loss_nats": ["3.5", "diverged", "-", None]})
    table = complete(frame, ("params", "loss_nats"))
    np.testing.assert_array_equal(table["loss_nats"], [3.5, np.nan, np.nan, np.nan])
    said = "loss_nats = 'diverged' in row 1, '-' in row 2: no number, read as missing"
    assert notes_of(table) == (said,) and notes_of(complete(table)) == (said,)
    with pytest.raises(TableError, match="loss_nats = 'diverged' in row 1: must be a number"):
        validate(frame, ("params",))


def test_categories_of_numbers_are_numbers(tmp_path):
    frame = pd.DataFrame({"params": pd.Categorical([1000000, 2000000]), "tokens": pd.Categorical([1e8, 1e9])})
    frame.to_parquet(tmp_path / "runs.parquet")
    assert list(complete(read_file(tmp_path / "runs.parquet"), ("params",))["flops"]) == [6e14, 12e15]


def test_a_header_is_taken_as_it_is(tmp_path):
    """Quotes, a mark of the encoding, names that stand for nothing, columns without a name, no rows, empty cells."""
    for text, columns in (
        ('\ufeff"a, b","c;d"\n1,2\n', ["a, b", "c;d"]),
        ("\nNA,b\n1,\n,2\n", ["NA", "b"]),
        ("a,,\n1,,\n", ["a", "Unnamed: 1", "Unnamed: 2"]),
        ("a,b\n", ["a", "b"]),
        ("a,b\n1\n", ["a", "b"]),
    ):
        (tmp_path / "runs.csv").write_text(text, encoding="utf-8")
        assert list(read_file(tmp_path / "runs.csv").columns) == columns


def test_complete_fills_in_what_the_analysis_relies_on_and_keeps_the_rest():
    frame = pd.DataFrame({"params": [1e6, "2e6"], "tokens": [1e8, 1e8], "seed": ["s0", "s1"], "width": [512.5, 64.0]})
    table = complete(frame)
    assert list(table["run"]) == ["row 0", "row 1"] and list(table["status"]) == ["done", "done"]
    assert list(table["flops"]) == [6e14, 12e14] and not table["held_out"].any()
    assert table[["family", "budget_flops"]].isna().all(axis=None)
    assert list(table["seed"]) == ["s0", "s1"] and list(table["width"]) == [512.5, 64.0]  # no fit reads them
    pd.testing.assert_frame_equal(complete(table), table)
    assert list(complete(frame, ("width",))["width"]) == [512.5, 64.0]  # nor need what a law reads be whole
    with pytest.raises(TableError, match="width = 'narrow' in row 0: must be a number"):
        complete(frame.assign(width=["narrow", "wide"]), ("width",))
    with pytest.raises(TableError, match="missing column 'loss_nats'"):
        complete(frame, ("loss_nats",))
    with pytest.raises(TableError, match="column 'params' is there 2 times"):
        complete(pd.concat([frame, frame[["params"]]], axis=1))


def test_a_count_that_flops_tell_is_taken_from_them_and_said():
    """Hoffmann et al.'s points, as read off their figure, have params and FLOPs alone."""
    whole = planted_table()[["params", "tokens", "flops", "budget_flops", "loss_nats"]]
    needed = ("params", "tokens", "loss_nats")
    for absent, price in (("tokens", "flops"), ("params", "flops"), ("tokens", "budget_flops")):
        given = whole.drop(columns=[absent] + (["flops"] if price == "budget_flops" else []))
        table = complete(given, needed)
        np.testing.assert_allclose(table[absent], whole[absent], rtol=1e-12)
        other = "params" if absent == "tokens" else "tokens"
        assert notes_of(table) == (f"{absent} are not in the table: they are taken as {price} / (6 * {other})",)
        columns = {name: name for name in given.columns}
        np.testing.assert_allclose(adopt(given, columns, needed)[absent], whole[absent], rtol=1e-12)
    for present in (["params", "loss_nats"], ["flops", "loss_nats"]):
        with pytest.raises(TableError, match="missing column"):
            complete(whole[present], needed)


def test_words_of_other_trackers_are_read():
    words = ["Finished", "completed", "crashed", "running", "queued", None]
    table = complete(pd.DataFrame({"status": words, "held_out": ["yes", "no", "1", 0, "FALSE", None]}))
    assert list(table["status"].fillna("none")) == ["done", "done", "failed", "running", "pending", "none"]
    assert list(table["held_out"]) == [True, False, True, False, False, False]
    with pytest.raises(TableError, match="status = 'ok': must be one of .*--ignore status"):
        complete(pd.DataFrame({"status": ["ok"]}))
    with pytest.raises(TableError, match="held_out = 'test': must be true or false"):
        complete(pd.DataFrame({"held_out": ["test"]}))


def test_adopt_takes_anyones_table_and_states_its_defaults():
    frame = pd.DataFrame({"N": [1e6, 2e6], "D": [1e8, 1e8], "loss": [3.0, 2.9], "C": [1e15, 2e15]})
    plain = adopt(frame, {"params": "N", "tokens": "D", "loss_nats": "loss"})
    np.testing.assert_array_equal(plain["flops"], 6 * frame["N"] * frame["D"])
    assert list(plain["run"]) == ["row 0", "row 1"] and set(plain["status"]) == {"done"}
    assert plain["budget_flops"].isna().all() and not plain["held_out"].any()
    priced = adopt(frame, {"params": "N", "tokens": "D", "loss_nats": "loss", "flops": "C"})
    np.testing.assert_array_equal(priced["flops"], frame["C"])
    with pytest.raises(TableError, match=r"missing column 'M'; present: N, D, loss, C"):
        adopt(frame, {"params": "M", "tokens": "D", "loss_nats": "loss"})
    with pytest.raises(TableError, match="'loss_nats' is not mapped"):
        adopt(frame, {"params": "N", "tokens": "D"})
    with pytest.raises(TableError, match="'sedd': neither of the law nor of the runs table. Fix: use one of seed"):
        adopt(frame, {"params": "N", "tokens": "D", "loss_nats": "loss", "sedd": "C"})


COLUMN_NAMES = {column.name for column in COLUMNS}


def test_the_schema_is_documented_in_one_table():
    text = schema_markdown()
    assert all(f"| `{column.name}` |" in text for column in COLUMNS)
    assert set(REQUIRED) <= set(planted_table().columns)
    assert all(column.unit for column in COLUMNS if column.dtype == "number")
