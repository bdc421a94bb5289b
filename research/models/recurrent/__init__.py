"""Recurrent sequence mixers: LSTM, GRU, their attended forms for sequence to sequence, RWKV-4 and RWKV-7.

Each file has the module for a whole sequence, its step on an explicit state, and its closed forms. `delta_rule.py` and
`token_shift.py` are what the RWKV layers share.
"""
