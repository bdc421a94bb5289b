"""The points of a runs table that a law can be fitted to, and every other row with the reason it is left out.

`reasons_left_out` is the single definition of a usable row.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from analysis.laws import Law
from analysis.tables.columns import some_of
from analysis.tables.files import words_of

NAMED_ROWS = 5  # of those left out
Rule = Literal["positive and finite", "finite and at least zero", "finite"]


class FitError(ValueError):
    """A table cannot be fitted; the message names the column or number, the rule and the fix."""


@dataclass(frozen=True)
class LeftOut:
    """A run (or a budget) that took no part in a fit, and why."""

    run: str
    reason: str


@dataclass(frozen=True)
class Points:
    """What is fitted: inputs and measured output, each (points,), the runs' names, and their rows' numbers."""

    inputs: dict[str, np.ndarray]
    output: np.ndarray
    runs: tuple[str, ...]
    rows: np.ndarray

    def where(self, chosen: np.ndarray) -> "Points":
        """The points at which `chosen` (points,) is true."""
        inputs = {name: values[chosen] for name, values in self.inputs.items()}
        runs = tuple(run for run, is_chosen in zip(self.runs, chosen, strict=True) if is_chosen)
        return Points(inputs, self.output[chosen], runs, self.rows[chosen])


def select(law: Law, table: pd.DataFrame) -> tuple[Points, tuple[LeftOut, ...]]:
    """The rows a fit of `law` may use, and every other row with the reason it is left out.

    A row is used when `reasons_left_out` has nothing to say of it: the law's inputs and output must be positive, unless
    the law says otherwise. table: a complete one (`runs_table.complete`). Raises FitError when a column of the law is
    missing or twice there.
    """
    _check_columns(law, table)
    reasons = reasons_left_out(table, {name: _rule(law, name) for name in (law.output, *law.inputs)})
    for name, allowed in law.choices:
        for i in np.flatnonzero(~np.isin(_numbers(table[name]), allowed) & (reasons == "")):
            reasons[i] = f"{name} = {table[name].iloc[i]} is none of {', '.join(f'{value:g}' for value in allowed)}"
    used = np.flatnonzero(reasons == "")
    names = table["run"].astype(str).to_numpy()
    inputs, output = {name: _numbers(table[name])[used] for name in law.inputs}, _numbers(table[law.output])[used]
    return Points(inputs, output, tuple(names[used]), used), left_out(table, reasons)


def reasons_left_out(table: pd.DataFrame, rules: Mapping[str, Rule]) -> np.ndarray:
    """Why each row of a complete table is left out of a fit that reads the columns `rules`: (rows,), "" if it is not.

    A row is used when it is not held out, its status is done, it keeps every rule, and it is not an exact copy of an
    earlier row. rules: what the values of a column must be.
    """
    reasons, words = np.full(len(table), "", dtype=object), words_of(table)

    def leave_out(rows: np.ndarray, text) -> None:
        for i in np.flatnonzero(rows & (reasons == "")):
            reasons[i] = text(i)

    leave_out(table["held_out"].to_numpy(bool), lambda i: "held out")
    leave_out(table["status"].fillna("unknown").ne("done").to_numpy(bool), lambda i: _status_reason(table.iloc[i]))
    for name, rule in rules.items():
        kept = _keeps(rule, _numbers(table[name]))
        leave_out(~kept, lambda i, name=name, rule=rule: _value_reason(table, name, i, rule, words))
    leave_out(_copies(table), lambda i: "exact copy of an earlier row")
    return reasons


def missing_reason(name: str, words: Mapping[str, Mapping[int, str]], label: Hashable) -> str:
    """Why a cell without a number is of no use: the word that stood there (`words_of` its table), or that none did."""
    word = words.get(name, {}).get(label)
    return f"{name} is missing or NaN" if word is None else f"{name} = {word!r} is not a number"


def left_out(table: pd.DataFrame, reasons: np.ndarray) -> tuple[LeftOut, ...]:
    """The rows of a complete table that `reasons_left_out` names."""
    rows = np.flatnonzero(reasons != "")
    runs = table["run"].iloc[rows].astype(str)
    return tuple(LeftOut(run, reasons[i]) for run, i in zip(runs, rows, strict=True))


def those_left_out(left_out: Sequence[LeftOut], used: int) -> str:
    """For the end of a fix: how many rows are left out, and the first few with their reasons; nothing without any."""
    if not left_out:
        return ""
    named = "; ".join(f"{item.run}: {item.reason}" for item in left_out[:NAMED_ROWS])
    more = f"; and {len(left_out) - NAMED_ROWS} more" if len(left_out) > NAMED_ROWS else ""
    return f" ({len(left_out)} of {len(left_out) + used} rows are left out: {named}{more})"


def by_reason(left_out: Sequence[LeftOut]) -> tuple[str, ...]:
    """For each reason, in order, which runs or budgets are left out for it: those of one name once, the first few."""
    found: dict[str, Counter[str]] = {}
    for item in left_out:
        found.setdefault(item.reason, Counter())[item.run] += 1
    texts = []
    for reason, names in found.items():
        named = [name if count == 1 else f"{name} ({count} of them)" for name, count in names.items()]
        more = f" and {len(named) - NAMED_ROWS} more" if len(named) > NAMED_ROWS else ""
        texts.append(f"{', '.join(named[:NAMED_ROWS])}{more}: {reason}")
    return tuple(texts)


def _check_columns(law: Law, table: pd.DataFrame) -> None:
    absent = [name for name in ("run", "status", "held_out") if name not in table.columns]
    if absent:
        raise FitError(f"table: has no {absent[0]}, and so is not complete. Fix: call runs_table.complete on it once.")
    for name in (*law.inputs, law.output):
        if name not in table.columns:
            raise FitError(
                f"table: missing column {name!r} of law {law.name!r}; present: {some_of(table.columns, name)}. Fix: "
                "add it, or map one of these to it."
            )
        if isinstance(table[name], pd.DataFrame):
            raise FitError(f"table: column {name!r} is there {table[name].shape[1]} times. Fix: keep one of them.")


def _copies(table: pd.DataFrame) -> np.ndarray:
    """Which rows equal an earlier one in every column but the run's name; lists and the like by how they print."""
    columns = enumerate(table.drop(columns="run", errors="ignore").items())  # numbered: a name may be there twice
    rest = pd.DataFrame({i: column for i, (_, column) in columns}).reset_index(drop=True)
    # Measurements part most rows from all others at once, and a row that is alone in one column is no copy.
    for i in np.flatnonzero([dtype.kind == "f" for dtype in rest.dtypes]):
        rest = rest[rest[i].duplicated(keep=False)]
    comparable = {i: column.map(repr) if column.dtype == object else column for i, column in rest.items()}
    copies = np.zeros(len(table), bool)
    copies[rest.index] = pd.DataFrame(comparable, index=rest.index).duplicated()
    return copies


def _numbers(column: pd.Series) -> np.ndarray:
    """The column as float64; what is not a number becomes NaN, and its row is left out with a reason."""
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)


def _rule(law: Law, name: str) -> Rule:
    if name == law.output and law.residual == "linear":
        return "finite"
    return "finite and at least zero" if name in law.may_be_zero else "positive and finite"


def _keeps(rule: Rule, values: np.ndarray) -> np.ndarray:
    lowest = {"finite": values > -np.inf, "finite and at least zero": values >= 0, "positive and finite": values > 0}
    return np.isfinite(values) & lowest[rule]


def _value_reason(table: pd.DataFrame, name: str, row: int, rule: str, words: Mapping[str, Mapping[int, str]]) -> str:
    value = table[name].iloc[row]
    if pd.isna(value):
        return missing_reason(name, words, table.index[row])
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
