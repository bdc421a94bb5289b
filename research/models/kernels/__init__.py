"""Operations that several programs compute: one of plain products, and kernels that are kept by others.

`attention.py` says which computes what where. Every one is the same function of its arguments.
"""
