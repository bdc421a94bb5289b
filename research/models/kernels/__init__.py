"""Operations that several programs compute: one of plain products, kernels that are kept by others, and our own.

`attention.py` says which computes what where. Every one is the same function of its arguments.
"""
