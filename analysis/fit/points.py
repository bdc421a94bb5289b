"""The points of a runs table that a law can be fitted to, and every other row with the reason it is left out."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.laws import Law


class FitError(ValueError):
    """A table cannot be fitted; the message names the column or number, the rule and the fix."""


@dataclass(frozen=True)
class LeftOut:
    """A run (or a budget) that took no part in a fit, and why."""

    run: str
    reason: str


@dataclass(frozen=True)
class Points:
    """What is fitted: inputs and measured output, each (points,), the runs' names and their rows in the table."""

    inputs: dict[str, np.ndarray]
    output: np.ndarray
    runs: tuple[str, ...]
    rows: np.ndarray


def select(law: Law, table: pd.DataFrame) -> tuple[Points, tuple[LeftOut, ...]]:
    """The rows a fit of `law` may use, and every other row with the reason it is left out.

    A row is used when it is not held out, its status is done, the law's inputs and output are numbers it can take
    (finite; positive unless the law says otherwise), and it is not an exact copy of an earlier row. Raises FitError
    when a column of the law is missing or twice there.
    """
    _check_columns(law, table)
    reasons = np.full(len(table), "", dtype=object)

    def leave_out(rows: np.ndarray, text) -> None:
        for i in np.flatnonzero(rows & (reasons == "")):
            reasons[i] = text(i)

    if "held_out" in table.columns:
        leave_out(table["held_out"].fillna(False).astype(bool).to_numpy(), lambda i: "held out")
    if "status" in table.columns:
        leave_out(table["status"].fillna("unknown").ne("done").to_numpy(), lambda i: _status_reason(table.iloc[i]))
    columns = {name: _numbers(table[name]) for name in (law.output, *law.inputs)}
    for name, values in columns.items():
        rule, allowed = _rule(law, name, values)
        leave_out(~allowed, lambda i, name=name, rule=rule: _value_reason(name, table[name].iloc[i], rule))
    leave_out(_copies(table), lambda i: "exact copy of an earlier row")
    names = [str(name) for name in table["run"]] if "run" in table.columns else [f"row {i}" for i in range(len(table))]
    used = reasons == ""
    left_out = tuple(LeftOut(names[i], reasons[i]) for i in np.flatnonzero(~used))
    points = Points(
        {name: columns[name][used] for name in law.inputs},
        columns[law.output][used],
        tuple(names[i] for i in np.flatnonzero(used)),
        np.flatnonzero(used),
    )
    return points, left_out


def _check_columns(law: Law, table: pd.DataFrame) -> None:
    for name in (*law.inputs, law.output):
        if name not in table.columns:
            raise FitError(
                f"table: missing column {name!r} of law {law.name!r}; present: "
                f"{', '.join(map(str, table.columns))}. Fix: add it, or map one of these to it."
            )
        if isinstance(table[name], pd.DataFrame):
            raise FitError(f"table: column {name!r} is there {table[name].shape[1]} times. Fix: keep one of them.")


def _copies(table: pd.DataFrame) -> np.ndarray:
    """Which rows equal an earlier one in every column but the run's name; lists and the like by how they print."""
    columns = enumerate(table.drop(columns="run", errors="ignore").items())
    comparable = {i: column.map(repr) if column.dtype == object else column for i, (_, column) in columns}
    return pd.DataFrame(comparable, index=table.index).duplicated().to_numpy(bool)


def _numbers(column: pd.Series) -> np.ndarray:
    """The column as float64; what is not a number becomes NaN, and its row is left out with a reason."""
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)


def _rule(law: Law, name: str, values: np.ndarray) -> tuple[str, np.ndarray]:
    """What a column's values must be, in words, and which of them are."""
    finite = np.isfinite(values)
    if name == law.output and law.residual == "linear":
        return "finite", finite
    if name in law.may_be_zero:
        return "finite and at least zero", finite & (values >= 0)
    return "positive and finite", finite & (values > 0)


def _value_reason(name: str, value: object, rule: str) -> str:
    if pd.isna(value):
        return f"{name} is missing or NaN"
    try:
        return f"{name} = {float(value):g} is not {rule}"
    except (TypeError, ValueError):
        return f"{name} = {value!r} is not a number"


def _status_reason(row: pd.Series) -> str:
    text = f"status {'unknown' if pd.isna(row['status']) else row['status']}"
    for name, link in (("failure_step", " at step "), ("failure_reason", ": ")):
        if name in row.index and not pd.isna(row[name]):
            text += f"{link}{row[name]}"
    return text
