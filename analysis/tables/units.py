"""Whether a table's numbers can be what their columns mean, before anything is fitted to them.

Errors are what no run can be: fewer than a thousand parameters or tokens (a count in billions), FLOPs that neither
attention nor embeddings nor routing make of params and tokens (another unit, a rate, a row that is off by a thousand).
Notes are what is only unlikely, and stand beside the result.

What FLOPs are of 6 * params * tokens, from the evidence there is. The twelve published tables of
`analysis/datasets/sources.py` have 0.74 to 1.07 where params are what a token passes, 3.95 to 5.0 in the OLMo ladder's
own counts, and 0.0051 where 512 experts are counted whole (routed_moe without active_params). Counting no embeddings
makes it 0.05 in the smallest model of Porian et al. 2024, counting forward passes alone a third. Full attention scores
add sequence_length / (6 * width): 22 for a width of 64 that reads 8,192 tokens, or one of 1,024 that reads 131,072.
The runs of this project's own experiments, of 4,240 parameters and up, have 0.079 to 2.2, and 0.33 to 1.3 of what their
columns (active_params, depth, width, sequence_length) explain.
LOWEST and HIGHEST lie beyond all of these and inside a factor of 1,000 of the usual 1. Within one published table rows
differ from the median by up to 19 (routed_moe), so FROM_MEDIAN is 50: a single row that is off by 1,000 is found.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.laws import Law
from analysis.tables.files import TableError
from analysis.tables.runs import rows_or_runs

# And those of one task or domain, as accuracy_<task>.
SHARES = ("accuracy", "token_accuracy", "exact_match", "coverage", "success")
ROUNDING = 1e-6  # a mean over answers in single precision may end beyond 1 by less
COUNTS = ("params", "active_params", "tokens", "unique_tokens")
STATED_COUNTS = {**dict.fromkeys((*COUNTS, "inference_tokens"), "7e9"), "flops": "1e21"}  # and one, as it is written
FEWEST, USUAL = 1e3, 1e9  # parameters or tokens of anything that is trained, and of what tables mostly hold
NO_COUNT = f"below {FEWEST:g}, which is no count; in billions or millions?"
LOWEST, HIGHEST, FROM_MEDIAN = 1 / 200, 100.0, 50.0
CONSTANT_WITHIN, RATE_SPAN = 1.01, 30.0  # FLOPs that do not differ while params * tokens do, by this factor, are a rate
LOWEST_NATS, HIGHEST_NATS = 1.2, 12.5  # 12.5 is ln(vocabulary) for 268,000 tokens; published losses start at 2.0
ONE_RATIO = 0.05  # of the e-folds of params: tokens per parameter that vary by less are called one ratio
SAME_FLOPS = 1.25  # between a budget and its runs' FLOPs: published tables have 1, this project's runs 0.9 to 1.1
NAMED_ROWS = 3
STATED = "stated_units"  # in `attrs` of a table: columns that the user said are in the schema's unit, and are believed
UNITS = (1e3, 1e6, 1e9, 1e12, 1e15, 1e18, 1e21, 1e24)


def with_stated(table: pd.DataFrame, units: Mapping[str, float]) -> pd.DataFrame:
    """The table, with the columns remembered whose unit a user said to be 1: their numbers are right as they stand."""
    as_they_are = [name for name, unit in units.items() if unit == 1]
    if as_they_are:
        table.attrs = {**table.attrs, STATED: as_they_are}
    return table


def check_units(law: Law, rows: pd.DataFrame) -> None:
    """Raise TableError where counts, FLOPs or shares of the `rows` that a fit of `law` reads are not in 1 and FLOP.

    rows: of a complete table. Columns named in `rows.attrs[STATED]` are taken as they stand, but for shares.
    """
    stated = rows.attrs.get(STATED, ())
    check_counts(rows, law.inputs)
    check_shares(rows, (*law.inputs, law.output))
    if {"params", "tokens"} <= set(law.inputs) and "flops" not in stated:
        _check_flops(rows)
    if "params" in law.inputs and not {"flops", "budget_flops"} & set(stated):
        _check_budgets(rows)


def check_stated_counts(stated: Mapping[str, float], fitted: Mapping[str, tuple[float, float]]) -> None:
    """Raise TableError where a count that a user states of a run is none, as in a table's row.

    stated: inputs, budgets, served tokens, by name. fitted: smallest and largest of those that a table has; where its
    own counts are as small, and were said to be right, any is taken.
    """
    wrong = [name for name in STATED_COUNTS if stated.get(name, FEWEST) < FEWEST <= fitted.get(name, (FEWEST,))[0]]
    if wrong:
        values = "; ".join(f"{name} = {stated[name]:g}" for name in wrong)
        raise TableError(f"{values}: {NO_COUNT} Fix: write it out, as {wrong[0]}={STATED_COUNTS[wrong[0]]}.")


def unit_notes(law: Law, rows: pd.DataFrame) -> tuple[str, ...]:
    """What is unlikely of the `rows` that a fit of `law` reads: sentences, none where all is usual."""
    sizes = [name for name in ("params", "tokens", "flops") if name in law.inputs]
    notes = (*_budget_notes(rows), *_ratio_notes(law, rows)) if {"params", "tokens"} <= set(law.inputs) else ()
    return (*notes, *loss_notes(rows, law.output, sizes))


def loss_notes(rows: pd.DataFrame, output: str, sizes: Sequence[str] = ()) -> tuple[str, ...]:
    """What is unlikely of a column of losses, and of how it goes with the columns `sizes`; nothing of any other."""
    if not output.startswith("loss_nats"):
        return ()
    losses, notes = _numbers(rows, output), []
    low, high = int(np.sum(losses < LOWEST_NATS)), int(np.sum(losses > HIGHEST_NATS))
    if low:
        notes.append(
            f"{output} is below {LOWEST_NATS:g} in {low} of {_counted(rows)}, down to {losses.min():.4g}: is it "
            "in bits per byte? It is read as nats per token; bits per byte * ln(2) * bytes per token are those"
        )
    if high >= 0.1 * len(losses) > 0:
        notes.append(
            f"{output} is above {HIGHEST_NATS:g} in {high} of {_counted(rows)}, up to {losses.max():.4g}, where "
            "a guess among 268,000 tokens has that: is it a perplexity? Its logarithm is the loss in nats per token"
        )
    if sizes and _grows_with(rows, sizes, losses):
        notes.append(f"{output} grows with {' and '.join(sizes)}: is it a score? A loss falls")
    return tuple(notes)


def check_counts(rows: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise TableError where those of the columns `names` that count parameters or tokens hold what is no count."""
    stated = rows.attrs.get(STATED, ())
    wrong, units = [], []
    for name in (name for name in COUNTS if name in names and name not in stated):
        values = _numbers(rows, name)
        small = values < FEWEST
        if small.any():
            wrong.append(f"{name} = {_named(rows, small, values)}")
            if values.max() < FEWEST**2:  # of the whole column, then
                units.append(f"{name}={_power_of_ten(_unit_for(USUAL / np.median(values)))}")
    if wrong:
        ways = [f"state the unit, as --unit {' '.join(units)}"] if units else []
        ways += ["mend these rows"] if len(units) < len(wrong) else []
        raise TableError(f"{'; '.join(wrong)}: {NO_COUNT} Fix: {', and '.join(ways)}.")


def batch_notes(rows: pd.DataFrame) -> tuple[str, ...]:
    """Batches of so few tokens that they may be counted in sequences; nothing where there is no such column."""
    if "batch_tokens" not in rows.columns or "batch_tokens" in rows.attrs.get(STATED, ()):
        return ()
    values = _numbers(rows, "batch_tokens")
    few = values < FEWEST
    if not few.any():
        return ()
    return (
        f"batch_tokens is below {FEWEST:g} in {int(few.sum())} of {len(values)} rows, down to "
        f"{np.nanmin(values):.4g}: is it in sequences? It is read as tokens; state the unit, as --unit "
        "batch_tokens=2048 for sequences of 2,048 tokens, or batch_tokens=1 where it is right",
    )


def is_share(name: str) -> bool:
    """Whether a column is a share of 1, such as an accuracy."""
    return name in SHARES or name.startswith(tuple(f"{share}_" for share in SHARES))


def check_shares(rows: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise TableError where those of the columns `names` that are shares of 1, accuracies, lie outside 0 to 1."""
    for name in filter(is_share, names):
        values = _numbers(rows, name)
        wrong = (values < 0) | (values > 1 + ROUNDING)
        if wrong.any():
            known = values[~np.isnan(values)]
            in_percent = known.min() >= 0 and known.max() <= 100 and 2 * np.sum(known > 1) > len(known)
            asked = "; in percent?" if in_percent else "."
            fix = f"state the unit, as --unit {name}=0.01" if in_percent else "mend these rows"
            raise TableError(f"{name} = {_named(rows, wrong, values)}: a share must lie in 0 to 1{asked} Fix: {fix}.")


def _budget_notes(rows: pd.DataFrame) -> tuple[str, ...]:
    """Budgets that are not what their runs cost: approach 2 puts minima at the ones, everything else at the others."""
    ratio = _numbers(rows, "budget_flops") / _numbers(rows, "flops")
    usable = np.isfinite(ratio) & (ratio > 0)
    ratio = ratio[usable]
    middle = float(np.median(ratio)) if len(ratio) else 1.0
    if max(middle, 1 / middle) <= SAME_FLOPS:
        return ()
    return (
        f"budget_flops are {middle:.3g} times the runs' flops (in the median of {_counted(rows[usable])}): approach 2 "
        "puts minima at the budgets, and laws count the flops, so that the two cannot agree. Leave out the column that "
        "is wrong, as --ignore flops or --ignore budget_flops",
    )


def _ratio_notes(law: Law, rows: pd.DataFrame) -> tuple[str, ...]:
    """Runs of nearly one number of tokens per parameter, whose terms of size and data take each other's place."""
    params, tokens = _numbers(rows, "params"), _numbers(rows, "tokens")
    usable = (params > 0) & (tokens > 0) & np.isfinite(params) & np.isfinite(tokens)
    ratio = tokens[usable] / params[usable]
    if law.fixed or len(ratio) < 2 or np.log(_span(ratio)) >= ONE_RATIO * np.log(_span(params[usable])):
        return ()
    ends = dict.fromkeys(f"{end:.3g}" for end in (ratio.min(), ratio.max()))
    return (
        f"tokens are {' to '.join(ends)} times params in every run: what comes of size and what of "
        "data can hardly be told apart, so constants trade against each other, and optima mean little. Add runs at "
        "other ratios, fit a law of one of the two, as --law kaplan_params, or hold constants, as --fix alpha=0.34 "
        "beta=0.28",
    )


def _check_flops(rows: pd.DataFrame) -> None:
    """FLOPs against 6 * params * tokens, of the active params where they are stated, attention added where it is."""
    flops, expected = _numbers(rows, "flops"), 6.0 * _numbers(rows, "params") * _numbers(rows, "tokens")
    usable = np.isfinite(flops) & (flops > 0) & np.isfinite(expected) & (expected > 0)
    if not usable.any():
        return
    ratio = np.where(usable, flops / np.where(usable, expected, 1.0), 1.0) / _explained(rows)
    if flops[usable].max() < CONSTANT_WITHIN * flops[usable].min() and _span(expected[usable]) > RATE_SPAN:
        raise TableError(
            f"flops = {flops[usable][0]:g} in every row, while 6 * params * tokens goes from "
            f"{expected[usable].min():.3g} to {expected[usable].max():.3g}: a rate (FLOP/s) is no total. Fix: leave it "
            "out, as --ignore flops, which prices runs at 6 * params * tokens."
        )
    middle = float(np.median(ratio[usable]))
    if not LOWEST <= middle <= HIGHEST:
        wrong, unit = usable & ((ratio < LOWEST) | (ratio > HIGHEST)), _unit_for(max(middle, 1 / middle))
        columns = _columns_off(rows, middle)
        raise TableError(
            f"flops = {_named(rows, wrong, flops)}: {middle:.3g} times 6 * params * tokens in the median, where "
            f"attention, embeddings and experts explain {LOWEST:g} to {HIGHEST:g}. {_fix(columns, unit, True)} Or "
            "price runs at 6 * params * tokens, as --ignore flops; flops that are right are said to be, as --unit "
            "flops=1."
        )
    wrong = usable & ((ratio > FROM_MEDIAN * middle) | (ratio < middle / FROM_MEDIAN))
    if wrong.any():
        raise TableError(
            f"flops = {_named(rows, wrong, flops)}: {ratio[wrong][0] / middle:.3g} times what the other rows' are of "
            "params * tokens. Fix: mend params, tokens or flops of these rows, or leave the column out, as --ignore "
            "flops; rows that are right are said to be, as --unit flops=1."
        )


def _check_budgets(rows: pd.DataFrame) -> None:
    budgets, flops = _numbers(rows, "budget_flops"), _numbers(rows, "flops")
    ratio = budgets / np.where(flops > 0, flops, np.nan)
    wrong = (ratio < LOWEST) | (ratio > HIGHEST)
    if wrong.any():
        middle = float(np.nanmedian(ratio))
        columns = ["budget_flops" if middle < 1 else "flops"]
        raise TableError(
            f"budget_flops = {_named(rows, wrong, budgets)}: {ratio[wrong][0]:.3g} times the run's flops. "
            f"{_fix(columns, _unit_for(max(middle, 1 / middle)), not LOWEST <= middle <= HIGHEST)} Or leave it out, as "
            "--ignore budget_flops."
        )


def _explained(rows: pd.DataFrame) -> np.ndarray:
    """FLOPs over 6 * params * tokens as far as the row's own columns say: experts passed by, attention scores added.

    1 where FLOPs are 6 * params * tokens whatever those columns hold.
    """
    params, active = _numbers(rows, "params"), _numbers(rows, "active_params")
    scores = 2.0 * _numbers(rows, "depth") * _numbers(rows, "width") * _numbers(rows, "sequence_length")
    passed = np.where(active > 0, active, params) + np.where(scores > 0, scores, 0.0)
    share = np.where((passed > 0) & np.isfinite(passed), passed / params, 1.0)
    six_nd = np.isclose(_numbers(rows, "flops"), 6.0 * params * _numbers(rows, "tokens"), rtol=1e-2, atol=0.0)
    return np.where(six_nd, 1.0, share)


def _columns_off(rows: pd.DataFrame, middle: float) -> list[str]:
    """The columns whose unit explains FLOPs that are `middle` times 6 * params * tokens."""
    if middle < 1:
        budgets = _numbers(rows, "budget_flops") / _numbers(rows, "flops")
        return ["flops", *(["budget_flops"] if (np.abs(np.log(budgets)) < np.log(FROM_MEDIAN)).all() else [])]
    return ["params" if np.median(_numbers(rows, "params")) < np.median(_numbers(rows, "tokens")) else "tokens"]


def _grows_with(rows: pd.DataFrame, names: Sequence[str], losses: np.ndarray) -> bool:
    """Whether ranks of the loss rise with ranks of every one of the columns, which explain most of them."""
    columns = [_ranks(_numbers(rows, name)) for name in names]
    ranks = _ranks(losses)
    if len(losses) < 5 or min(np.ptp(column) for column in (*columns, ranks)) == 0:
        return False
    design = np.stack([np.ones(len(ranks)), *columns], axis=1)
    slopes, *_ = np.linalg.lstsq(design, ranks, rcond=None)
    unexplained = np.sum((ranks - design @ slopes) ** 2) / np.sum((ranks - ranks.mean()) ** 2)
    return bool((slopes[1:] > 0).all() and unexplained < 0.5)


def _numbers(rows: pd.DataFrame, name: str) -> np.ndarray:
    values = rows[name] if name in rows.columns else pd.Series(np.nan, rows.index)
    return pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)


def _counted(rows: pd.DataFrame) -> str:
    return f"{len(rows)} {rows_or_runs(len(rows), rows['run'].nunique(dropna=False))}"


def _ranks(values: np.ndarray) -> np.ndarray:
    return pd.Series(values).rank().to_numpy()


def _span(values: np.ndarray) -> float:
    return float(values.max() / values.min())


def _unit_for(factor: float) -> float:
    """The unit nearest to a factor, a power of a thousand."""
    return min(UNITS, key=lambda unit: abs(np.log(unit / factor)))


def _power_of_ten(unit: float) -> str:
    return f"1e{round(np.log10(unit))}"


def _fix(columns: Sequence[str], unit: float, in_all: bool) -> str:
    if in_all:
        return f"Fix: state the unit, as --unit {' '.join(f'{name}={_power_of_ten(unit)}' for name in columns)}."
    return f"Fix: mend {columns[0]} of these rows."


def _named(rows: pd.DataFrame, wrong: np.ndarray, values: np.ndarray) -> str:
    """The first few values with their runs' names, and how many there are."""
    first = [f"{values[i]:g} of run {rows['run'].iloc[i]!r}" for i in np.flatnonzero(wrong)[:NAMED_ROWS]]
    return f"{', '.join(first)} ({int(wrong.sum())} of {_counted(rows)})"
