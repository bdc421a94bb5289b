"""Regular expressions that Python's re and the Rust syntax that llguidance reads take for the same."""

import re
import warnings

from research.config import ConfigError, check

# What is skipped: an escaped character and a class, in neither of which a quantifier stands.
_POSSESSIVE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<found>[*+?}]\+)", re.DOTALL)


def check_expression(field: str, text: str) -> None:
    """Raise ConfigError unless Python's re reads it without a warning, and reads it as Rust's syntax is read.

    That refuses classes in a class and operations on them ([a&&b]), which Rust alone has, repetition of a repetition,
    and possessive quantifiers, which Rust takes for one. Look-around, back-references and word boundaries are left to
    llguidance to refuse.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            # The flag is the default. It keeps clear of what re remembers of the same text, which it reads in silence.
            re.compile(text, re.UNICODE)
    except OverflowError as error:
        raise ConfigError(f"{field} = {text!r}: {error}. Fix: repeat less often.") from error
    except re.error as error:
        raise ConfigError(
            f"{field} = {text!r}: is no regular expression at line {error.lineno}, column {error.colno}: {error.msg}. "
            "Fix: write what Python's re reads."
        ) from error
    except FutureWarning as error:
        raise ConfigError(
            f"{field} = {text!r}: {str(error).lower()}, which re and Rust read differently. Fix: escape the bracket or "
            "operator in the class."
        ) from error
    possessive = next((match for match in _POSSESSIVE.finditer(text) if match["found"]), None)
    column = possessive.start() + 1 if possessive else 0
    check(possessive is None, field, text, f"has a possessive quantifier at character {column}, which Rust lacks",
          f"write {possessive['found'][0] if possessive else ''}")  # fmt: skip
