"""Mixtures of experts as a channel mixer: who goes where (`router.py`), and how tokens get there and back.

`moe.py` is the module; `dispatch.py` has the algorithms, all one function; `grouped_swiglu.py` is the product of groups
of unequal size. A new way to route is one more function in router.py and a field or value of MoeConfig.
"""
