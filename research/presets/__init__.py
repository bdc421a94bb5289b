"""Models as published: their dimensions, their exact parameter count, and what the source prints.

A family of models is one file here with a dict `PRESETS` of its rows and one line in the union below. Every row is held
to three equal counts by tests/test_presets.py: the abstract shapes of the real module, the closed form of
research/plan/cost.py, and `params`, a number from outside this code (released weights, or the paper's formula).
`published` must agree with it to within one unit of its last significant digit. A model of which fewer parameters touch
each token states `active_params` too.
"""

import difflib

from research.config import ConfigError
from research.presets import chinchilla, gpt, h3, jamba, llama, mamba, moe, qk_norm, rwkv
from research.presets.preset import Preset

PRESETS: dict[str, Preset] = {
    **llama.PRESETS,
    **qk_norm.PRESETS,
    **gpt.PRESETS,
    **chinchilla.PRESETS,
    **mamba.PRESETS,
    **jamba.PRESETS,
    **moe.PRESETS,
    **h3.PRESETS,
    **rwkv.PRESETS,
}


def preset(name: str) -> Preset:
    """The preset of that name; ConfigError naming the nearest ones if there is none."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.3) or list(PRESETS)
        raise ConfigError(f"preset = {name!r}: unknown. Nearest: {', '.join(near)}.")
    return PRESETS[name]
