"""The runs table: one row per training run, and the whole contract between training and analysis.

The schema is written here and nowhere else. Training fills the table and `validate` holds it to the schema; whoever
reads a table calls `complete` once, which fills in every column that the analysis relies on; `adopt` also maps the
column names of a table that this project did not make. Files are CSV and Parquet with the same content.
"""

import dataclasses
import difflib
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd

from analysis.files import write_atomically
from analysis.lifecycle import PHASES, Status
from analysis.tables.columns import missing_message
from analysis.tables.files import TableError, notes_of, read_file, renumbered, with_notes, with_words, words_of
from analysis.tables.values import Column, cell_by_cell, converted, status_of, truth_of, words_note

FOREIGN = "foreign"  # experiment of runs whose table names none
RELIED_ON = ("run", "experiment", "family", "status", "held_out", "budget_flops", "flops")  # what `complete` fills in

COLUMNS = (
    Column("run", "string", "", "name of the run, unique in the table", required=True),
    Column("experiment", "string", "", "experiment the run belongs to", required=True),
    Column("family", "string", "", "architecture family; one law is fitted per family"),
    Column("fingerprint", "string", "", "digest of everything that decides the run's numbers"),
    Column("stage", "string", "", "what the run is a stage of: pre_training, or what fine-tunes its parent"),
    Column("parent", "string", "", "fingerprint of the run whose parameters it starts from"),
    Column("status", "string", "", f"one of {', '.join(Status)}", required=True),
    Column("held_out", "bool", "", "kept away from every fit", required=True),
    Column("seed", "integer", "", "seed of initialisation and data order"),
    Column("budget_flops", "number", "FLOP", "compute budget the run was planned for", required=True),
    Column("params", "number", "parameters", "all trained parameters, embeddings included", required=True),
    Column("embedding_params", "number", "parameters", "parameters of the embedding table and the output head"),
    Column("active_params", "number", "parameters", "parameters that one token passes through"),
    Column("experts", "integer", "experts", "feed-forward experts that a routed layer chooses from; 1 when dense"),
    Column("experts_per_token", "integer", "experts", "feed-forward experts that one token passes through"),
    Column("granularity", "number", "1", "width of a dense feed-forward layer over the width of one expert"),
    Column("tokens", "number", "tokens", "training tokens predicted over the whole run", required=True),
    Column("unique_tokens", "number", "tokens", "different training tokens; tokens / unique_tokens passes are made"),
    Column("flops", "number", "FLOP", "training FLOPs: the model's work, full attention scores", required=True),
    Column("flops_causal", "number", "FLOP", "training FLOPs with the causal half of attention only"),
    Column("flops_6nd", "number", "FLOP", "6 * params * tokens"),
    Column("executed_flops", "number", "FLOP", "training FLOPs of the matrix products that the run's program executed"),
    Column(
        "elementwise_flops", "number", "FLOP", "training FLOPs of recurrences and convolutions beside those products"
    ),
    Column("state_bytes", "number", "bytes", "decode state of one sequence of sequence_length tokens"),
    Column("width", "integer", "channels", "width of the residual stream"),
    Column("depth", "integer", "layers", "residual layers"),
    Column("sequence_length", "integer", "tokens", "tokens per training sequence"),
    Column("batch_tokens", "integer", "tokens", "tokens predicted per optimizer step"),
    Column("steps", "integer", "steps", "optimizer steps planned"),
    Column("objective", "string", "", "name of what training minimises"),
    Column("optimizer", "string", "", "name of the optimizer"),
    Column("parametrisation", "string", "", "how initialisation and rates change with the model's size"),
    Column("learning_rate", "number", "1", "peak of the learning-rate schedule"),
    Column("weight_decay", "number", "1", "decoupled weight decay"),
    Column("schedule_area", "number", "1", "sum of the learning rate over the steps made so far"),
    Column("annealing_area", "number", "1", "S2 of Tissue et al. 2024 (analysis/studies/schedule_areas.py)"),
    Column(
        "loss_nats",
        "number",
        "nats per token",
        "held-out loss (a classifier's per example), mean over domains weighted by their rates in the training mixture",
        required=True,
    ),
    Column("bits_per_byte", "number", "bits per byte", "held-out loss per byte of text, weighted in the same way"),
    Column("loss_nats_<domain>", "number", "nats per token", "held-out loss on one domain"),
    Column("bits_per_byte_<domain>", "number", "bits per byte", "held-out loss per byte of text on one domain"),
    Column(
        "token_accuracy",
        "number",
        "1",
        "share of held-out tokens predicted right, the text before given",
    ),
    Column("exact_match", "number", "1", "share of held-out examples with every token right, weighted likewise"),
    Column("brier", "number", "1", "Brier score of a held-out token, 0 (sure and right) to 2, weighted likewise"),
    Column("token_accuracy_<domain>", "number", "1", "share of right tokens on one domain"),
    Column("exact_match_<domain>", "number", "1", "share of held-out examples of one domain with every token right"),
    Column("brier_<domain>", "number", "1", "Brier score of a token on one domain"),
    Column("task_loss", "number", "bits per byte", "loss of a downstream task's correct answers"),
    Column("accuracy", "number", "1", "share of a downstream task's questions, or of held-out examples, judged right"),
    Column("task_loss_<task>", "number", "bits per byte", "loss of one task's correct answers"),
    Column("accuracy_<task>", "number", "1", "the same of one task, or of the examples of one domain"),
    Column("verifier_loss", "number", "1", "held-out loss of a verifier's number after a token, weighted likewise"),
    Column(
        "calibration_error", "number", "1", "mean |estimate - share that is right| over bins of a verifier's estimate"
    ),
    Column("auc", "number", "1", "share of pairs of a right example and a wrong one that a verifier ranks so"),
    Column("verifier_loss_<domain>", "number", "1", "a verifier's loss on one domain"),
    Column("calibration_error_<domain>", "number", "1", "a verifier's calibration error on one domain"),
    Column("auc_<domain>", "number", "1", "a verifier's auc on one domain"),
    Column("samples", "number", "samples", "answers that were drawn for each question"),
    Column("coverage", "number", "1", "share of the questions that any of the samples solves (pass@k)"),
    Column("success", "number", "1", "share of the questions that the answer chosen among the samples solves"),
    Column("gain", "number", "1", "success, or another measure, of the chosen answer above that of one sample"),
    Column("train_loss_nats", "number", "nats per token", "training loss at the end of the run"),
    Column(
        "noise_scale_tokens",
        "number",
        "tokens",
        "gradient noise scale tr(Sigma) / |G|^2 of the last quarter of the steps, each part averaged over them",
    ),
    *(Column(f"{phase}_seconds", "number", "s", meaning) for phase, meaning in PHASES.items()),
    Column("wall_seconds", "number", "s", "whole run, from start to result"),
    Column("matmul_flops_per_second", "number", "FLOP/s", "best matrix-product rate measured in the run's process"),
    Column("backend", "string", "", "cpu, gpu or tpu"),
    Column("algorithms", "string", "", "which of equal programs ran, as attention dense, moe ragged"),
    Column("devices", "integer", "devices", "devices the run used"),
    Column("trained_together", "integer", "runs", "runs that one program stepped together, this one among them"),
    Column("failure_step", "integer", "step", "step at which a failed run stopped"),
    Column("failure_reason", "string", "", "why a failed run stopped"),
)
REQUIRED = tuple(column.name for column in COLUMNS if column.required)
# What `complete` fills in where a column is absent; every run of a million gets its name in one operation.
DEFAULTS = {
    "run": lambda table: "row " + pd.Series(range(len(table))).astype("string"),
    "experiment": FOREIGN,
    "family": pd.NA,
    "status": "done",
    "held_out": False,
    "budget_flops": float("nan"),
    "flops": float("nan"),
}


def schema_markdown() -> str:
    """The schema as a Markdown table: column, type, unit, meaning, required."""
    lines = ["| column | type | unit | meaning | required |", "|---|---|---|---|---|"]
    for column in COLUMNS:
        lines.append(
            f"| `{column.name}` | {column.dtype} | {column.unit or '-'} | {column.meaning} | "
            f"{'yes' if column.required else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def validate(table: pd.DataFrame, required: Sequence[str] = REQUIRED) -> pd.DataFrame:
    """A copy of `table` with the schema's dtypes; columns outside the schema are kept as they are.

    Raises TableError for a missing required column (naming it, the columns that are there and the fix), a value that
    does not fit its column's type, an unknown status, or a run named twice.
    """
    _check_present({name: name for name in required}, table)
    table = table.copy()
    for name in table.columns:
        column = column_of(name)
        if column is not None:
            table[name] = converted(table[name], column)[0]
    _check_statuses(table.get("status", pd.Series(dtype="string")))
    check_run_names(table.get("run", pd.Series(dtype="string")))
    return table


def complete(frame: pd.DataFrame, required: Sequence[str] = ()) -> pd.DataFrame:
    """A copy of `frame` that has every column the analysis relies on; every reader of a table calls it first.

    Absent columns are filled in: `run` is "row" and its number, `experiment` "foreign", `status` done, `held_out`
    false, `family` and `budget_flops` missing, `flops` 6 * params * tokens (Kaplan 2020, section 2.1) where both are
    there and else missing. Where only one of params and tokens is there, and both are required, the other is
    flops / (6 * the one), as in many published tables, and `notes_of` the table says so. An empty cell of `held_out`
    is false; a row without a status stays without one, and a fit leaves it out and says so. The words other trackers
    use for a status (finished, crashed, ...) and for true and false are read. In a column of numbers a cell that holds
    a word is empty, and `notes_of` the table says so; in a required column of whole numbers others are read, too: a law
    reads numbers, such as the optimum of a fitted batch. Of the other columns of the schema, one that does not fit its
    type is kept as it is.
    Raises TableError for a required column that is absent, or for a value that cannot be read in a column that is
    required or relied on.
    """
    frame = _with_counts(frame, required)
    _check_present({name: name for name in required}, frame)
    table = renumbered(frame)
    for name in (*RELIED_ON, "params", "tokens", *required):
        if name in table.columns and isinstance(table[name], pd.DataFrame):
            raise TableError(f"table: column {name!r} is there {table[name].shape[1]} times. Fix: keep one of them.")
    table = table.assign(**{name: v for name, v in DEFAULTS.items() if name not in table.columns})
    table["held_out"] = cell_by_cell(table["held_out"], truth_of)
    table["status"] = cell_by_cell(table["status"], status_of)
    read, notes, words = {*RELIED_ON, *required}, list(notes_of(frame)), words_of(table)
    for name in dict.fromkeys(table.columns):
        column = column_of(name)
        if column is not None and name in read:
            table[name], wrong = converted(table[name], column, words_allowed=True, whole=False)
            if len(wrong):
                notes.append(words_note(wrong, name))
                words[name] = words.get(name, {}) | {row: str(cell) for row, cell in wrong.items()}
        elif column is not None:
            table[name] = _converted_if_it_fits(table[name], column)
    _check_statuses(table["status"])
    if table["flops"].isna().all():
        table["flops"] = six_nd(table)
    table = with_words(table, words) if words else table
    return with_notes(table, notes) if notes else table


def six_nd(table: pd.DataFrame) -> pd.Series:
    """6 * params * tokens of each row (Kaplan 2020, section 2.1); the flops of a table that lacks one of them."""
    if not {"params", "tokens"} <= set(table.columns):
        return table["flops"]
    params, tokens = (pd.to_numeric(table[name], errors="coerce").astype("float64") for name in ("params", "tokens"))
    return 6.0 * params * tokens


def told_by_flops(columns: Collection[str], required: Collection[str]) -> str | None:
    """Which of params and tokens is required and absent, where the other one and FLOPs are there; None for neither."""
    absent = [name for name in ("params", "tokens") if name not in columns]
    priced = "flops" in columns or "budget_flops" in columns
    return absent[0] if len(absent) == 1 and absent[0] in required and priced else None


def _with_counts(frame: pd.DataFrame, required: Sequence[str]) -> pd.DataFrame:
    """`frame` with the one of params and tokens that it lacks, where FLOPs tell it."""
    absent = told_by_flops(frame.columns, required)
    if absent is None:
        return frame
    price = "flops" if "flops" in frame.columns else "budget_flops"
    given = "tokens" if absent == "params" else "params"
    flops, count = (pd.to_numeric(frame[name], errors="coerce").astype("float64") for name in (price, given))
    note = f"{absent} are not in the table: they are taken as {price} / (6 * {given})"
    return with_notes(frame.assign(**{absent: flops / (6.0 * count)}), [*notes_of(frame), note])


def check_run_names(runs: pd.Series) -> None:
    """Raise TableError where a run is named twice, as only checkpoints of one run may be (`tables.runs`)."""
    if runs.duplicated().any():
        raise TableError(
            f"run = {runs[runs.duplicated()].iloc[0]!r}: stands in more than one row. Fix: give every run its own name."
        )


def read(path: Path | str, required: Sequence[str] = REQUIRED) -> pd.DataFrame:
    """The runs table in a `.csv` or `.parquet` file, validated. Raises TableError as `validate` does."""
    return validate(read_file(path), required)


def write(table: pd.DataFrame, stem: Path | str) -> list[Path]:
    """Validate `table` and write `<stem>.csv` and `<stem>.parquet`; a reader never sees half a file."""
    table = validate(table)
    csv_path, parquet_path = Path(f"{stem}.csv"), Path(f"{stem}.parquet")
    csv_path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(csv_path, table.to_csv(index=False).encode())
    write_atomically(parquet_path, table.to_parquet(index=False))
    return [csv_path, parquet_path]


def adopt(
    frame: pd.DataFrame, columns: Mapping[str, str], needed: Sequence[str] = ("params", "tokens", "loss_nats")
) -> pd.DataFrame:
    """A runs table from anyone's table: `columns` maps names of this schema, or of a law, to those used in `frame`.

    The `needed` ones (a law's inputs and output) must be mapped, but for what `complete` takes from FLOPs; each of the
    rest is taken only if mapped. What is not mapped is filled in as `complete` says.
    Raises TableError for an unknown or missing column, or a mapped value that is not of its column's type.
    """
    known = list(dict.fromkeys([*needed, *(column.name for column in COLUMNS)]))
    for name in columns:
        if name not in known:
            near = ", ".join(difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known)
            raise TableError(f"column {name!r}: neither of the law nor of the runs table. Fix: use one of {near}.")
    absent = told_by_flops(columns, needed)
    for name in needed:
        if name not in (*columns, "flops", absent):
            raise TableError(f"columns: {name!r} is not mapped. Fix: say which column of the table holds it.")
    _check_present(columns, frame)
    named = pd.DataFrame({name: frame[source].to_numpy() for name, source in columns.items()})
    table = complete(with_notes(named, notes_of(frame)), [*columns, *([absent] if absent else [])])
    return table[[name for name in known if name in table.columns]]


def digest(table: pd.DataFrame, names: Sequence[str]) -> str:
    """A digest of what a fit of the columns `names` reads in a complete table: every run not held out, in any order."""
    rows = table.loc[
        ~table["held_out"], list(dict.fromkeys(["run", "family", "status", "budget_flops", "flops", *names]))
    ]
    rows = rows.astype({name: "float64" for name in rows.columns if pd.api.types.is_numeric_dtype(rows[name])})
    # Twelve digits: CSV and Parquet of the same runs may differ in the last one.
    text = rows.to_csv(index=False, columns=sorted(rows.columns), float_format="%.12g")
    header, *lines = text.splitlines()
    return hashlib.sha256("\n".join([header, *sorted(lines)]).encode()).hexdigest()


def unit_of(name: str) -> str:
    """The unit of a column of the schema, nothing for a pure number or a column outside it."""
    column = column_of(name)
    return column.unit if column and column.unit != "1" else ""


def column_of(name: object) -> Column | None:
    """The column of the schema that a name is, by that name (accuracy_arc, not accuracy_<task>); None outside it."""
    found = next((column for column in COLUMNS if column.matches(str(name))), None)
    return None if found is None else dataclasses.replace(found, name=str(name))


def _converted_if_it_fits(values: pd.Series | pd.DataFrame, column: Column) -> pd.Series | pd.DataFrame:
    if isinstance(values, pd.DataFrame):  # a column that is there twice
        return values
    try:
        return converted(values, column)[0]
    except (TableError, TypeError):  # TypeError: lists and the like
        return values


def _check_present(columns: Mapping[str, str], frame: pd.DataFrame) -> None:
    missing = {name: source for name, source in columns.items() if source not in frame.columns}
    if missing:
        known = {*columns, *(column.name for column in COLUMNS)}
        raise TableError(missing_message(missing, frame.columns, known))


def _check_statuses(statuses: pd.Series) -> None:
    unknown = sorted(set(statuses.dropna().unique()) - set(Status))
    if unknown:
        raise TableError(
            f"status = {unknown[0]!r}: must be one of {', '.join(Status)}. Fix: rename it, or drop the "
            "column (--ignore status)."
        )
