"""Objectives, one file each: a function from a RunConfig to the `Objective` of base.py."""
