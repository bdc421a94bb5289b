"""What a column's values are: a loss or not, what they mean, how they are printed, with a unit where there is one."""

from analysis.runs_table import column_of, unit_of

LOSS_UNITS = ("nats per token", "bits per byte")
LOSS_WORDS = ("loss", "perplexity", "entropy", "bits_per", "nats")  # in the name of a column outside the schema
GRAIN = 1e-7  # of an output: a smaller residual, or noise, is rounding
QUANTITY = ".5g"  # how a value of a column is printed: a loss of 2.1234 and a learning rate of 3.1e-05 alike


def is_loss(name: str) -> bool:
    """Whether the least of a column is what one wants: a loss, of which there are compute-optimal runs and valleys."""
    column = column_of(name)
    return column.unit in LOSS_UNITS if column else any(word in name.lower() for word in LOSS_WORDS)


def plural(word: str, count: int) -> str:
    """The word for so many: "run" for 1, "runs" for any other count."""
    return word if count == 1 else f"{word}s"


def counted(count: int, word: str) -> str:
    """So many of them: "1 run", "18 runs"."""
    return f"{count} {plural(word, count)}"


def with_unit(name: str) -> str:
    """A column's name with its unit in brackets, where it has one."""
    return f"{name} ({unit_of(name)})" if unit_of(name) else name


def meaning_of(name: str) -> str:
    """What a column of the schema holds, nothing for a column outside it."""
    column = column_of(name)
    return column.meaning if column else ""
