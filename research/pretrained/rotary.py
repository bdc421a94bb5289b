"""Rotary positions in config.json: `rope_theta` and `rope_scaling` before transformers 5, `rope_parameters` since.

Either form is read and both are written, since an older reader knows the older alone and falls back to its default.
"""

from collections.abc import Mapping
from typing import Any

from research.config import AttentionConfig, RopeScaling
from research.pretrained.settings import is_finite, or_null, refuse

LLAMA_3 = {  # key -> field of RopeScaling
    "factor": "factor",
    "low_freq_factor": "low_factor",
    "high_freq_factor": "high_factor",
    "original_max_position_embeddings": "original_length",
}
# Key beside `rope_scaling` before transformers 5, the last two GPT-NeoX's -> key in `rope_parameters`.
OLD_FORM = {"rope_theta": "rope_theta", "rotary_emb_base": "rope_theta", "rotary_pct": "partial_rotary_factor"}
KNOWN = {
    "default": {"rope_type", "type", "rope_theta", "partial_rotary_factor"},
    "llama3": {"rope_type", "type", "rope_theta", "partial_rotary_factor", *LLAMA_3},
}


def rope_keys(theta: float = 10_000.0) -> dict[str, Any]:
    """The keys that are read, with the family's own default of the base."""
    return {"rope_theta": theta, "rope_parameters": or_null(None, dict), "rope_scaling": or_null(None, dict)}


def rope_settings(cfg: AttentionConfig) -> dict[str, Any]:
    """Both forms of what AttentionConfig says."""
    scaling = None
    if cfg.rope_scaling is not None:
        scaling = {"rope_type": "llama3"} | {key: getattr(cfg.rope_scaling, name) for key, name in LLAMA_3.items()}
    return {
        "rope_parameters": {"rope_theta": cfg.rope_theta, **(scaling or {"rope_type": "default"})},
        "rope_theta": cfg.rope_theta,
        "rope_scaling": scaling,
    }


def rope_fields(settings: Mapping[str, Any], fraction: float = 1.0, theta: str = "rope_theta") -> dict[str, Any]:
    """The rotary fields of AttentionConfig that complete settings say in either form.

    fraction: of each head's channels that are rotated where `rope_parameters` does not say; theta: the key of the base.

    Raises CheckpointError for a kind of scaling that this project does not have, or an unknown key or value in it.
    """
    form = "rope_parameters" if settings["rope_parameters"] else "rope_scaling"
    rope = settings[form] or {}
    kind = _kind(rope)
    if not isinstance(kind, str) or kind not in KNOWN:
        raise refuse(f"{form}.rope_type", kind, "must be 'default' or 'llama3'", "use a model with one of those")
    for key, value in rope.items():
        if key not in KNOWN[kind]:
            raise refuse(f"{form}.{key}", value, f"is no key of rope_type {kind!r}", "remove it if it means nothing")
    numbers = {key: _number(form, key, value) for key, value in rope.items() if key not in ("rope_type", "type")}
    fields = {
        "rope_theta": float(numbers.get("rope_theta", settings[theta])),
        "rope_fraction": float(numbers.get("partial_rotary_factor", fraction)),
    }
    if kind == "default":
        return fields
    for key in LLAMA_3:
        if key not in numbers:
            raise refuse(f"{form}.{key}", None, "is missing, and rope_type 'llama3' needs it", "add it")
    return {**fields, "rope_scaling": RopeScaling(**{name: numbers[key] for key, name in LLAMA_3.items()})}


def check_whole_heads(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a family that turns all channels of a head; CheckpointError if they say another share."""
    if fields["rope_fraction"] != 1:
        rule = "must be 1: every channel of a head is rotated"
        raise refuse("rope_parameters.partial_rotary_factor", fields["rope_fraction"], rule, "use a model without it")
    return dict(fields)


def check_forms_agree(given: Mapping[str, Any]) -> None:
    """Raise CheckpointError if a file says both forms and they differ: its readers would compute different models."""
    new = given.get("rope_parameters")
    said = {key: given[key] for key in OLD_FORM if key in given}
    scaling = given.get("rope_scaling") or {}
    if not new or not isinstance(new, dict) or not isinstance(scaling, dict):
        return  # one form alone, or values that are refused for their kind
    for key, value in said.items():
        _check_agrees(key, value, OLD_FORM[key], new.get(OLD_FORM[key], value))
    if scaling or "rope_theta" in map(OLD_FORM.get, said):
        _check_agrees("rope_scaling.rope_type", _kind(scaling), "rope_type", _kind(new))
    for key, value in scaling.items():
        if key not in ("rope_type", "type"):
            _check_agrees(f"rope_scaling.{key}", value, key, new.get(key, value))


def _check_agrees(key: str, value: Any, name: str, other: Any) -> None:
    if value != other:
        rule = f"rope_parameters.{name} is {other!r}, and which of the two is meant is not said"
        raise refuse(key, value, rule, "remove the wrong one")


def _kind(rope: Mapping[str, Any]) -> Any:
    return rope.get("rope_type", rope.get("type", "default"))


def _number(form: str, key: str, value: Any) -> float:
    if not is_finite(value):
        raise refuse(f"{form}.{key}", value, "must be a finite number", "correct the file")
    return value
