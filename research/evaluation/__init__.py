"""What a trained model scores on held-out examples: loss, bits per byte, accuracy, exact match, per domain.

Reads parameters and examples, trains nothing. A new measure is one more key of what an objective's `measures`
return, and a column of analysis/runs_table.py.
"""
