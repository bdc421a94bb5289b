"""The verbs on anyone's table of runs: fit, predict, score, backtest, compare, bowls, critical-batch, downstream,
laws.

`request` holds the options they share, `outputs` where their results go; what they print are sections of
analysis/report. They need the analysis alone, not flax or tensorflow. What reads the command line (a verb's signature,
`request`, `outputs`) imports nothing heavy: numpy, pandas and jax are imported when a verb runs, so that --help is
instant.
"""
