"""One run from its first step to its last: objective, compiled step, feed, loop, checkpoints, metrics.

`step` is the program, pure functions compiled once; `loop` is the life of a run. Only `checkpoint` touches orbax, only
`metrics` TensorBoard. What is minimised is an argument of the program and not written here.
"""
