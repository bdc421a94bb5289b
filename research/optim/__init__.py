"""How parameters change: the optimizer, its schedules, and which parameters each rule is for.

What a parameter is (a matrix, a norm's scale, a state space's dynamics) is its role, stated where it is made in
models/layers.py; the rules for each role are in `optimizer`.
"""
