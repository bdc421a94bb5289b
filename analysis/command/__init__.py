"""The verbs on anyone's table of runs: fit, predict, score, backtest.

`request` holds the options they share, `show` prints to the terminal. They need the analysis alone, not flax or
tensorflow.
"""
