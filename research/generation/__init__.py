"""Text out of a model: decoding on the explicit state of its mixers, in one compiled program.

`greedy` is the one way to decode so far; another is another file here that drives the same
`language_model.decode_step`.
"""
