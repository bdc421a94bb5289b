"""Attention as a sequence mixer: grouped queries, DeepSeek's latent attention, and cross-attention of a decoder.

Rotary frequencies, relative distances and bucketed scores are in `positions.py`, for every kind of attention. A new
kind is one file with its module, its decode state and its closed forms, named in models/mixers.py.
"""
