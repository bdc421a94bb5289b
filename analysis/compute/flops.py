"""How FLOPs are counted: a rule that prices any size, read off a table or named by convention.

An optimum belongs to a convention. Kaplan et al. 2020 leave embeddings out, Hoffmann et al. 2022 count them, others add
attention scores, and small models move by tens of percent between these (Porian et al. 2024, arXiv:2406.19146, section
3.1; Pearce and Song 2024, arXiv:2406.12907).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fit import FitError


@dataclass(frozen=True)
class FlopRule:
    """flops = (coefficient * params^params_exponent + correction * params^correction_exponent) * tokens.

    The cost of a token depends on the model alone, so tokens enter to the first power. 6 * params * tokens is
    FlopRule(6). The second term is what a convention adds (attention scores) or leaves out (embeddings, negative); it
    grows more slowly than the first. largest_error: the largest relative error over the runs it was read off.
    """

    coefficient: float
    params_exponent: float = 1.0
    correction: float = 0.0
    correction_exponent: float = 0.0
    largest_error: float = 0.0

    def per_token(self, params: np.ndarray) -> np.ndarray:
        """Training FLOPs of one token at a size."""
        main = self.coefficient * params**self.params_exponent
        return main + self.correction * params**self.correction_exponent if self.correction else main

    def tokens(self, flops: float, params: np.ndarray) -> np.ndarray:
        """Tokens that `flops` buys at a size."""
        return flops / self.per_token(params)

    def flops(self, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Training FLOPs of a run."""
        return self.per_token(params) * tokens

    @property
    def smallest_params(self) -> float:
        """The size where a negative second term takes away half of the first: below it the rule means little."""
        if self.correction >= 0:
            return 0.0
        return float(
            (-2 * self.correction / self.coefficient) ** (1 / (self.params_exponent - self.correction_exponent))
        )

    def __str__(self) -> str:
        main = f"{self.coefficient:.4g} * {_power(self.params_exponent)}"
        if not self.correction:
            return f"flops = {main} * tokens"
        sign = "+" if self.correction > 0 else "-"
        return f"flops = ({main} {sign} {abs(self.correction):.4g} * {_power(self.correction_exponent)}) * tokens"


SIX_ND = FlopRule(6.0)


def fit_flop_rule(params: np.ndarray, tokens: np.ndarray, flops: np.ndarray) -> FlopRule:
    """The power law of a table's own counts, by least squares in logarithms; exponent 1 when all runs have one size."""
    coefficient, exponent = _power_law(params, flops / tokens)
    return _with_error(FlopRule(coefficient, exponent), params, tokens, flops)


def _of_table(table: pd.DataFrame) -> FlopRule:
    params, tokens = _columns(table, "table", "params", "tokens")
    return fit_flop_rule(params, tokens, *_columns(table, "table", "flops"))


def _six_nd(table: pd.DataFrame) -> FlopRule:
    return SIX_ND


def _kaplan(table: pd.DataFrame) -> FlopRule:
    """6 * (params - embedding_params) * tokens, embeddings as a power of params over the table's sizes."""
    params, tokens, embedding = _columns(table, "kaplan", "params", "tokens", "embedding_params")
    if (embedding >= params).any():
        row = int(np.flatnonzero(embedding >= params)[0])
        raise FitError(
            f"embedding_params = {embedding[row]:g} of a run with params = {params[row]:g}: must be fewer. Fix: let "
            "params count every parameter."
        )
    scale, exponent = _power_law(params, embedding)
    rule = FlopRule(6.0, 1.0, -6.0 * scale, exponent)
    return _with_error(rule, params, tokens, 6.0 * (params - embedding) * tokens)


def _attention(table: pd.DataFrame) -> FlopRule:
    """6 * params + 12 * depth * width * sequence_length FLOPs per token (Chowdhery et al. 2022, PaLM, appendix B)."""
    names = ("params", "tokens", "depth", "width", "sequence_length")
    params, tokens, depth, width, length = _columns(table, "attention", *names)
    scores = 12.0 * depth * width * length
    scale, exponent = _power_law(params, scores)
    return _with_error(FlopRule(6.0, 1.0, scale, exponent), params, tokens, (6.0 * params + scores) * tokens)


CONVENTIONS: dict[str, Callable[[pd.DataFrame], FlopRule]] = {
    "table": _of_table,
    "6nd": _six_nd,
    "kaplan": _kaplan,
    "attention": _attention,
}


def flop_rule(convention: str, table: pd.DataFrame) -> FlopRule:
    """The rule of a named convention for the runs in a complete `table`, or one written out as `6.2 * params^0.98`.

    table: as the table counts, in its column flops. 6nd: 6 * params * tokens. kaplan: 6 * (params -
    embedding_params) * tokens. attention: 6nd plus full attention scores, from depth, width and sequence_length.
    Raises FitError for an unknown name or a missing column.
    """
    if convention in CONVENTIONS:
        return CONVENTIONS[convention](table)
    written = re.fullmatch(r"\s*([\d.eE+-]+)\s*\*\s*params\s*(?:\^\s*([\d.]+))?\s*", convention)
    try:
        rule = FlopRule(float(written[1]), float(written[2] or 1.0)) if written else None
    except ValueError:
        rule = None
    if rule is None or not (rule.coefficient > 0 and rule.params_exponent > 0):
        raise FitError(
            f"flop rule = {convention!r}: must be one of {', '.join(CONVENTIONS)}, or FLOPs per token such as "
            "'6.2 * params^0.98' with positive numbers. Fix: choose one."
        )
    return rule


def _columns(table: pd.DataFrame, convention: str, *names: str) -> list[np.ndarray]:
    found = []
    for name in names:
        values = pd.to_numeric(table.get(name, pd.Series([np.nan])), errors="coerce").to_numpy(
            np.float64, na_value=np.nan
        )
        if not (np.isfinite(values) & (values > 0)).all():
            state = "has a value that is not positive and finite" if name in table else "is missing"
            raise FitError(
                f"flop rule = {convention!r}: column {name!r} {state}. Fix: fill it in for every fitted run, or use "
                "the rule 6nd."
            )
        found.append(values)
    return found


def _power_law(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    log_x, log_y = np.log(x), np.log(y)
    centre = log_x.mean()
    spread = np.sum((log_x - centre) ** 2)
    exponent = float(np.sum((log_x - centre) * log_y) / spread) if spread > 1e-12 else 1.0
    return float(np.exp(log_y.mean() - exponent * centre)), exponent


def _with_error(rule: FlopRule, params: np.ndarray, tokens: np.ndarray, flops: np.ndarray) -> FlopRule:
    error = float(np.max(np.abs(rule.flops(params, tokens) / flops - 1)))
    return FlopRule(rule.coefficient, rule.params_exponent, rule.correction, rule.correction_exponent, error)


def _power(exponent: float) -> str:
    return "params" if f"{exponent:.4g}" == "1" else f"params^{exponent:.4g}"
