"""A language model: an embedding, a stack of residual blocks that a pattern names, and heads (`language_model.py`,
`heads.py`).

A mixer is one file in attention/, experts/, recurrent/ or state_spaces/ and one line in `mixers.py`. Parameters are
made in `layers.py` alone, so that each states its shape, initialiser, logical axes and role where it is made.
"""
