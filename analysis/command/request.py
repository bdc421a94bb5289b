"""What the verbs on a table have in common: which file, which law, which column holds what.

Read by the command line before it is known what to do, so whatever computes is imported where it is needed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    import pandas as pd

    from analysis.fit import Objective
    from analysis.laws import Law
    from analysis.studies import Study

Assignments = tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class Reading:
    """How a table of runs is read: what its columns, numbers and rows are."""

    column: Annotated[Assignments, tyro.conf.arg(metavar="NAME=COLUMN")] = ()
    """Column of the file that holds an input or the output of the law, or a column of the runs table (flops,
    budget_flops, run, status, held_out, ...). Names that agree need not be given."""
    ignore: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN")] = ()
    """Columns of the file to leave unread, although their names are those of columns of the runs table."""
    where: Annotated[Assignments, tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """Rows to read: those whose column has this value, or one of several that are given for it."""
    unit: Annotated[Assignments, tyro.conf.arg(metavar="NAME=NUMBER")] = ()
    """What one of a column's units is: params=1e9 for billions. flops=1 says that they are right as they stand."""
    decimal: str = ""
    """Decimal mark of a text file's numbers, "." or ",", where 1,234 does not say which; concluded if not given."""

    def read(self, path: Path, needed: Sequence[str]) -> "pd.DataFrame":
        """The runs table that a file holds, with the columns `needed`.

        A column that is neither needed nor mapped nor relied on by every fit is kept as it is, whatever it holds.
        """
        from analysis.fit import FitError
        from analysis.runs_table import RELIED_ON, adopt, complete, read_file, told_by_flops
        from analysis.tables.columns import some_of
        from analysis.tables.units import with_stated

        frame = read_file(path, self.decimal)
        absent = [name for name in self.ignore if name not in frame.columns]
        if absent:
            there = some_of(frame.columns, absent[0])
            raise FitError(f"--ignore {absent[0]}: no such column; present: {there}. Fix: name one.")
        mapped, units = pairs("--column", self.column), numbers("--unit", self.unit)
        frame = self._chosen(frame, mapped, units).drop(columns=list(self.ignore))
        asked = {name: name for name in (*needed, *RELIED_ON) if name in frame.columns} | mapped
        told = told_by_flops(asked, needed)
        asked |= {name: name for name in needed if name not in (*asked, "flops", told)}
        unread = [name for name, source in asked.items() if source in self.ignore]
        if unread:
            raise FitError(
                f"--ignore {asked[unread[0]]}: is read here. Fix: leave it out of --ignore, or name another column, as "
                f"--column {unread[0]}=YOURS."
            )
        table = with_stated(adopt(frame, asked, needed), units)
        unasked = [name for name in frame.columns if name not in (*asked.values(), *table.columns)]
        return complete(table.assign(**{name: frame[name].to_numpy() for name in unasked}), needed)

    def _chosen(self, frame: "pd.DataFrame", mapped: Mapping[str, str], units: Mapping[str, float]) -> "pd.DataFrame":
        """The rows asked for, in the units of the runs table."""
        from analysis.tables.choice import check_columns, chosen_rows, in_units

        wanted = {mapped.get(name, name): values for name, values in assignments("--where", self.where).items()}
        if wanted and "run" not in (*mapped, *frame.columns):
            check_columns(frame, [name for name in wanted if name != "run"], "--where")
            frame = frame.assign(run=[f"row {i}" for i in range(len(frame))])  # as they are counted in the file
        frame = chosen_rows(frame, wanted)
        return in_units(frame, {mapped.get(name, name): unit for name, unit in units.items()})


AS_IT_IS = Reading()


@dataclass(frozen=True)
class Source:
    """A table of runs and how it is read."""

    table: tyro.conf.Positional[Path]
    """Text (CSV and the like) or Parquet file, one row per run."""
    reading: Annotated[Reading, tyro.conf.arg(name="")] = AS_IT_IS

    def read(self, needed: Sequence[str]) -> "pd.DataFrame":
        """The runs table that the file holds, with the columns `needed`."""
        return self.reading.read(self.table, needed)


@dataclass(frozen=True)
class Request:
    """A law, and how it is fitted."""

    law: str = "chinchilla"
    """Name of the law, or FILE.py:NAME for a law that a Python file of your own defines."""
    fix: Annotated[Assignments, tyro.conf.arg(metavar="CONSTANT=VALUE")] = ()
    """Constants of the law that are held at a value instead of fitted."""
    objective: str = "huber"
    """Loss of a residual: huber, least_squares or huber_likelihood (free scale). They have different optima."""
    delta: float | None = None
    """Residual where huber turns from square to linear, 1e-3 if not given; huber_likelihood counts it in scales."""

    def chosen_law(self) -> "Law":
        """The law with its held constants. Raises LawError for an unknown name."""
        from analysis.laws import load

        return load(self.law).fix(**numbers("--fix", self.fix))

    def chosen_objective(self) -> "Objective":
        """The objective of that name, with the delta asked for. Raises FitError for an unknown one."""
        from analysis.fit import OBJECTIVES, FitError, Objective

        if self.objective not in OBJECTIVES:
            raise FitError(f"objective = {self.objective!r}: must be one of {', '.join(OBJECTIVES)}. Fix: choose one.")
        named = OBJECTIVES[self.objective]
        if self.delta is None:
            return named
        if named.delta is None:
            raise FitError(f"delta = {self.delta:g}: {named.name} has none. Fix: leave it out, or use huber.")
        if not self.delta > 0:
            raise FitError(f"delta = {self.delta:g}: must be positive. Fix: use 1e-3.")
        return Objective(named.name, self.delta)

    def read(self, source: Source, *also: str) -> "pd.DataFrame":
        """The runs table that a source holds for this law, with the further columns `also`; "" names none."""
        law = self.chosen_law()
        return source.read((*law.inputs, law.output, *(name for name in also if name not in ("", "flops"))))

    def study(self, table: "pd.DataFrame", **settings: Any) -> "Study":
        """The law fitted to a table, with its intervals."""
        from analysis.studies import fit_table

        return fit_table(table, law=self.chosen_law(), objective=self.chosen_objective(), **settings)


Merged = tyro.conf.arg(name="")


def assignments(option: str, groups: Iterable[Iterable[str]]) -> dict[str, list[str]]:
    """NAME=TEXT assignments: every text given for a name. Raises FitError for one that is none."""
    from analysis.fit import FitError

    found: dict[str, list[str]] = {}
    for assignment in (assignment for group in groups for assignment in group):
        name, equals, text = assignment.partition("=")
        if not (name and equals and text):
            raise FitError(f"{option} = {assignment!r}: must be NAME=VALUE. Fix: write it as {option} params=N.")
        found.setdefault(name, []).append(text)
    return found


def pairs(option: str, groups: Iterable[Iterable[str]]) -> dict[str, str]:
    """NAME=TEXT assignments as a dict. Raises FitError for one that is none, or a name that is given twice."""
    from analysis.fit import FitError

    found = assignments(option, groups)
    for name, texts in found.items():
        if len(texts) > 1:
            raise FitError(f"{option} {name}: is given twice, {texts[0]!r} and {texts[1]!r}. Fix: keep one.")
    return {name: text for name, (text,) in found.items()}


def numbers(option: str, groups: Iterable[Iterable[str]]) -> dict[str, float]:
    """NAME=NUMBER assignments as a dict. Raises FitError as `pairs` does, or for a value that is not a number."""
    from analysis.fit import FitError

    found = {}
    for name, text in pairs(option, groups).items():
        try:
            found[name] = float(text)
        except ValueError:
            raise FitError(f"{option} {name} = {text!r}: must be a number. Fix: write one, as 1e9.") from None
    return found


def is_named(table: "pd.DataFrame", run: str | None) -> "pd.Series":
    """Which rows of a table are the run of that name; none if there is no name."""
    # As objects: pyarrow compares no text that holds bytes which the command line could not decode.
    return table["run"].astype(str).astype(object) == run
