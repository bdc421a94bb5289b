"""Published tables for the tests: read where the setting says, or the test is skipped with the reason."""

import os

import pytest

from analysis.datasets import SETTING, load


def published_table(name):
    """The runs table of a published data set; skips the test when the setting is not there."""
    if not os.environ.get(SETTING):
        pytest.skip(f"{SETTING} is not set: analysis/datasets/sources.py says where to get the {name} table")
    return load(name)
