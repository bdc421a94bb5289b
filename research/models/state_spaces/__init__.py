"""State-space sequence mixers: S4 and S4D, H3, Mamba and Mamba-2.

`ssm_parameters.py` and `ssm_kernel.py` serve the linear time-invariant ones (S4, H3), `selective_scan.py` Mamba,
`ssd.py` Mamba-2; `hippo.py` has their starting matrices and `convolution.py` the short causal convolution.
"""
