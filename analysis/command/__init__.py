"""The verbs of `isoflop` on anyone's table of runs, one module each: fit, predict, score, backtest."""
