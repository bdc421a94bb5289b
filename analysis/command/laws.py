"""`isoflop laws`: which laws there are, and what each says."""

from typing import Annotated

import tyro

from analysis.command.outputs import standard_output


def laws(law: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[LAW]")] = None) -> None:
    """Print every law that can be fitted, or one in full: formula, inputs, output, constants with units, citation.

    Args:
        law: name of a law, or FILE.py:NAME for one that a Python file of your own defines; all, shorter, if not given.
    """
    from analysis.laws import LAWS, load
    from analysis.report import law_in_full, laws_section, show

    show(standard_output(), laws_section(LAWS.values()) if law is None else law_in_full(load(law)))
