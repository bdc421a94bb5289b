"""How the tokens that a loss takes grow with the batch."""

from analysis.laws.definition import Law, Parameter

CRITICAL_BATCH = Law(
    name="critical_batch",
    formula="tokens = tokens_min (1 + batch_tokens / critical_batch)",
    citation="McCandlish et al. 2018, arXiv:1812.06162, section 2.3: (S / S_min - 1) (E / E_min - 1) = 1 for S steps "
    "and E = S batch_tokens tokens, with critical_batch = E_min / S_min; isoflop critical-batch makes tables for it",
    inputs=("batch_tokens",),
    output="tokens",
    parameters=(
        Parameter("tokens_min", "tokens", "tokens that the loss takes in the smallest batches (E_min)"),
        Parameter(
            "critical_batch",
            "tokens",
            "batch that takes twice tokens_min, and twice the fewest steps",
            (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
            start_unit="batch_tokens",
        ),
    ),
    predict=lambda p, x: p["tokens_min"] * (1.0 + x["batch_tokens"] / p["critical_batch"]),
)

LAWS = (CRITICAL_BATCH,)
