"""What each key of a family's config.json means to us: read, without effect, or allowed at given values alone.

`transformers` ignores keys that it does not know, and so do most readers; a key that changes the function and leaves no
trace in the tensors would then be lost without a word. Here every key of a file stands in one of its family's tables,
or is refused by name. tests/test_pretrained_settings.py compares the tables with the config classes of `transformers`.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType, NoneType
from typing import Any, NamedTuple

WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a string", dict: "an object"}
WORDS |= {list: "a list", tuple: "a list", NoneType: "null"}
LARGEST = 2**24  # whole number that is read, all being sizes: more than any model has along one dimension
MOST_PARTS = 2**10  # of what is gone through one by one: layers, experts in one of them, taps of a convolution
PARTS = {  # the keys that count those, in any family
    *("num_hidden_layers", "n_layer", "num_nextn_predict_layers", "conv_kernel", "mamba_d_conv"),
    *("num_experts", "num_local_experts", "n_routed_experts"),
}

DROPOUT = "dropout is of training alone"
INITIALISATION = "how parameters begin, before any training"
OTHER_OUTPUTS = "asks for further outputs, or leaves some out"
KERNEL = "which kernel computes it, not what"
NO_TABLE = "the longest sequence the model is meant for; no table of positions has this many rows"
OTHER_READER = "of another program's reader; transformers reads the model's size from other keys"


def because(why: str, keys: str) -> dict[str, str]:
    """One reason for several keys, separated by spaces."""
    return dict.fromkeys(keys.split(), why)


# Keys of every family that change nothing: of the base class of transformers' configs, old and new, and of tools.
BOOKKEEPING = {
    **because("the name of the family and of its classes", "model_type architectures auto_map"),
    **because("provenance", "_name_or_path _commit_hash transformers_version transformers.js_config"),
    **because("provenance", "unsloth_version unsloth_fixed"),
    **because("tensors are read as the file stores them", "dtype torch_dtype use_bfloat16 torchscript"),
    **because(KERNEL, "_attn_implementation _attn_implementation_autoset _experts_implementation attn_implementation"),
    **because(KERNEL, "chunk_size_feed_forward gradient_checkpointing"),
    **because(INITIALISATION, "initializer_range initializer_factor"),
    **because(OTHER_OUTPUTS, "output_attentions output_hidden_states output_scores return_dict use_return_dict"),
    **because(OTHER_OUTPUTS, "return_dict_in_generate use_cache tie_last_hidden_states"),
    **because("of the tokenizer", "bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id"),
    **because("of the tokenizer", "tokenizer_class prefix"),
    **because("of other tasks", "id2label label2id num_labels problem_type finetuning_task task_specific_params"),
    **because("of encoders and other frameworks", "is_decoder tf_legacy_loss tie_encoder_decoder"),
    **because(
        "of generation",
        "max_length min_length max_new_tokens do_sample early_stopping num_beams num_beam_groups diversity_penalty "
        "temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size "
        "encoder_no_repeat_ngram_size bad_words_ids num_return_sequences forced_bos_token_id forced_eos_token_id "
        "remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens",
    ),
}
# Keys of every family that may stand at one value alone; the first of the values is what leaving the key out means.
EVERYWHERE_ONLY: Mapping[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "compression_config": (None,),
    "pruned_heads": (None, {}),
    "per_layer_config": (None, {}),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
}


class CheckpointError(ValueError):
    """A checkpoint cannot be read or written; the message names the file, key or tensor, what it is and the rule."""


class Key(NamedTuple):
    """A key that is read: what a file that leaves it out means by that, the kinds its value may have, and the least."""

    default: Any
    kinds: tuple[type, ...]
    least: int = 1


def or_null(default: Any, kind: type = int) -> Key:
    """A key whose value may be null, which the family gives a meaning of its own."""
    return Key(default, (kind, NoneType))


def or_zero(default: int) -> Key:
    """A whole number that may be zero."""
    return Key(default, (int,), 0)


@dataclass(frozen=True)
class Keys:
    """The keys of one family's config.json, each in one of the tables."""

    read: Mapping[str, Any]  # key -> Key, or its default where that says the kind
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # key -> values allowed, the default first
    unused: Mapping[str, str] = field(default_factory=dict)  # key that changes nothing -> why
    other_names: Mapping[str, str] = field(default_factory=dict)  # another name of a key -> the key
    longest: str | None = "max_position_embeddings"  # the key, if any, by which a file says how long a sequence may be

    def but(
        self,
        read: Mapping[str, Any] = MappingProxyType({}),
        only: Mapping[str, tuple[Any, ...]] = MappingProxyType({}),
        unused: Mapping[str, str] = MappingProxyType({}),
        other_names: Mapping[str, str] = MappingProxyType({}),
    ) -> "Keys":
        """The keys of a family that differs in these; a key leaves the table that it was in."""
        moved = {*read, *only, *unused}
        return replace(
            self,
            read={key: said for key, said in self.read.items() if key not in moved} | dict(read),
            only={key: values for key, values in self.only.items() if key not in moved} | dict(only),
            unused={key: why for key, why in self.unused.items() if key not in moved} | dict(unused),
            other_names={**self.other_names, **other_names},
        )


def refuse(key: str, value: Any, rule: str, fix: str) -> CheckpointError:
    """The error of a config.json's key, to be raised."""
    return CheckpointError(f"config.json: {key} = {value!r}: {rule}. Fix: {fix}.")


def complete(settings: Mapping[str, Any], keys: Keys) -> dict[str, Any]:
    """The settings of a config.json, with the family's own default for every key that is read and left out.

    Raises CheckpointError for a key that stands in no table, a value that is not of the key's kind, or one at which the
    family is no model of this project.
    """
    given = _by_one_name(settings, keys.other_names)
    only = {**EVERYWHERE_ONLY, **keys.only}
    for key, value in given.items():
        if key in keys.read:
            _check_kind(key, value, _key(keys.read[key]))
        elif key in only:
            if value not in only[key]:
                allowed = " or ".join(repr(item) for item in only[key])
                raise refuse(key, value, f"must be {allowed}", "use a checkpoint that has it")
        elif key not in keys.unused and key not in BOOKKEEPING:
            rule = f"is no key of {settings.get('model_type')!r} known here, so what it changes is not known either"
            raise refuse(key, value, rule, "remove it if the model's function does not depend on it")
    whole = {key for key, said in keys.read.items() if float in _key(said).kinds and isinstance(given.get(key), int)}
    given |= {key: float(given[key]) for key in whole}  # jax takes whole numbers for int32
    return {key: _key(said).default for key, said in keys.read.items()} | given


def quotient(settings: Mapping[str, Any], key: str, divisor: int, rule: str) -> int:
    """settings[key] / divisor; CheckpointError unless it is a whole number."""
    if settings[key] % divisor:
        raise refuse(key, settings[key], f"must be a multiple of {rule} = {divisor}", "use a checkpoint where it is")
    return settings[key] // divisor


def must_equal(settings: Mapping[str, Any], key: str, value: Any, rule: str) -> None:
    """Raise CheckpointError unless the key is null, left out or `value`, which other keys say already."""
    if settings.get(key) not in (None, value):
        raise refuse(key, settings[key], f"must be {rule} = {value!r}", "use a checkpoint where the two agree")


def _by_one_name(settings: Mapping[str, Any], other_names: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for key, value in settings.items():
        name = other_names.get(key, key)
        if name in given and given[name] != value:
            raise refuse(key, value, f"{name}, which means the same, is {given[name]!r}", "remove one of the two")
        given[name] = value
    return given


def _key(said: Any) -> Key:
    return said if isinstance(said, Key) else Key(said, (type(said),))


def _check_kind(key: str, value: Any, known: Key) -> None:
    if not any(_is(value, kind) for kind in known.kinds):
        kinds = " or ".join(dict.fromkeys(WORDS[kind] for kind in known.kinds))
        raise refuse(key, value, f"must be {kinds}", "correct the file")
    if isinstance(value, int) and not isinstance(value, bool) and int in known.kinds:
        most = MOST_PARTS if key in PARTS else LARGEST
        if value < known.least:
            raise refuse(key, value, f"must be at least {known.least}", "correct the file")
        if value > most:
            raise refuse(key, value, f"must be at most {most:,}", "correct the file")


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return is_finite(value) if kind is float else isinstance(value, kind)


def is_finite(value: Any) -> bool:
    """Whether a value of JSON is a number that a float can hold, which a whole number may be too large for."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
