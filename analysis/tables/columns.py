"""What is said of columns that a table lacks: which it has that come near, and how to name one of them."""

import difflib
import re
from collections.abc import Collection, Mapping

MOST_NAMED = 12  # columns of a table that an error lists
NEAREST = 5  # of a wider one
ALIKE = 0.5  # share of letters in common (difflib's ratio) that a misspelling has
WORD = r"[^\W\d_]{3,}"


def some_of(present: Collection[object], *wanted: str) -> str:
    """The columns of a table: all of a few, else those nearest to one of the `wanted`, and how many others."""
    names = list(map(str, present))
    if len(names) > MOST_NAMED:
        names = sorted(names, key=lambda name: -max(_alike(one, name) for one in wanted))[:NEAREST]
    others = len(present) - len(names)
    return f"{', '.join(map(_written, names)) or 'none'}{f' and {others} others' if others else ''}"


def missing_message(missing: Mapping[str, str], present: Collection[object], known: Collection[str]) -> str:
    """What a table lacks, and how to name what holds it.

    missing: names of the schema or of a law, each with the column it was to be read from. known: all such names: a
    column that has one is what it says, and is not guessed to be another.
    """
    sources = list(dict.fromkeys(missing.values()))
    return (
        f"table: missing column{'s' if len(sources) > 1 else ''} {', '.join(map(repr, sources))}; present: "
        f"{some_of(present, *sources)}. Fix: {_fix(missing, present, known)}."
    )


def _fix(missing: Mapping[str, str], present: Collection[object], known: Collection[str]) -> str:
    guesses = [str(name) for name in present if name not in known]
    near = {source: _nearest(source, guesses) for source in missing.values()}
    hint = ", ".join(f"{found!r} for {source!r}" for source, found in near.items() if found)
    hint = f" (perhaps {hint})" if hint else ""
    idle = [name for name in missing if name in present]  # is read under its own name if it is not mapped
    needed = " ".join(f"{name}=YOURS" for name in missing if name not in idle)
    if not idle:
        return f"add {'it' if len(missing) == 1 else 'them'}, or name yours, as --column {needed}{hint}"
    mapped = " ".join(f"{name}={missing[name]}" for name in idle)
    out = f"leave --column {mapped} out, since the table has {', '.join(map(repr, idle))}, or name another"
    return f"{out}{f'; name yours, as --column {needed}' if needed else ''}{hint}"


def _nearest(wanted: str, names: Collection[str]) -> str:
    """The name that is likely another spelling of the one wanted, or ""."""
    best = max(names, key=lambda name: _alike(wanted, name), default="")
    return best if _alike(wanted, best) >= ALIKE else ""


def _alike(one: str, other: str) -> float:
    """The share of letters in common, and 1 more for a word in common: val_loss is nearer to loss_nats than status."""
    one, other = one.lower(), other.lower()
    shared = set(re.findall(WORD, one)) & set(re.findall(WORD, other))
    return difflib.SequenceMatcher(None, one, other).ratio() + bool(shared)


def _written(name: str) -> str:
    """A name as it is, or in quotes where blanks or letters that do not print would hide how it differs."""
    return name if name.isprintable() and name == name.strip() and "," not in name else repr(name)
