"""RWKV-4 (Peng 2023, arXiv 2305.13048): time mix and channel mix, in the published code's parametrisation.

    wkv[t] = (sum over i < t of exp(k[i] - (t - 1 - i) decay) v[i]  +  exp(bonus + k[t]) v[t]) / (the same without v)

per channel. The sums are kept relative to the largest exponent met so far, so that nothing overflows.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from research.config import ModelConfig
from research.models.algorithms import algorithm
from research.models.initialisers import Initializer, Orthogonal, zeros
from research.models.kernels import wkv as kernel
from research.models.layers import Shared, at_least_float32, parameter, project
from research.models.recurrent.token_shift import PerChannel, before, interpolate, last_token, project_mixed
from research.per_device import on_each_device
from research.sharding import constrain, platform

EMPTY_EXPONENT = -1e38  # of sums over nothing
KERNEL_LENGTH = 64  # tokens below which `pallas` takes no kernel: a TPU's computes whole chunks of 128


class Sums(flax.struct.PyTreeNode):
    """numerator * exp(exponent) and denominator * exp(exponent) of what was read, float32, each (..., D)."""

    numerator: jax.Array
    denominator: jax.Array
    exponent: jax.Array


class TimeState(flax.struct.PyTreeNode):
    """The last token and the sums over all of them: its size does not depend on their number."""

    last_BD: jax.Array
    sums: Sums


class ChannelState(flax.struct.PyTreeNode):
    """The last token."""

    last_BD: jax.Array


def init_time_state(config: ModelConfig, batch: int, max_length: int) -> TimeState:
    """Nothing read."""
    return TimeState(jnp.zeros((batch, config.width), config.compute_dtype), _empty_sums(config, batch))


def init_channel_state(config: ModelConfig, batch: int, max_length: int) -> ChannelState:
    """Nothing read."""
    return ChannelState(jnp.zeros((batch, config.width), config.compute_dtype))


def _empty_sums(config: ModelConfig, batch: int) -> Sums:
    zero_BD = jnp.zeros((batch, config.width), jnp.promote_types(config.compute_dtype, jnp.float32))
    return Sums(zero_BD, zero_BD, zero_BD + EMPTY_EXPONENT)


class TimeMix(nn.Module):
    """out(sigmoid(r) * wkv), with r, k and v each from its own interpolation of the token and its predecessor."""

    config: ModelConfig
    layer: int

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, state: TimeState | None, shared: Shared
    ) -> tuple[jax.Array, TimeState | None, Shared]:
        cfg, D = self.config, x_BLD.shape[-1]
        before_BD = before(x_BLD, state)

        def mixed(name: str, mix: Callable, weight_init: Initializer) -> tuple[jax.Array, jax.Array, str]:
            mix_D = parameter(self, f"{name}_mix", (D,), "width", PerChannel(mix, cfg.depth), "vector")
            return mix_D, parameter(self, name, (D, D), "width hidden", weight_init, "hidden"), "width hidden"

        products = project_mixed(
            _interpolation,
            x_BLD,
            before_BD,
            shared.mask_BL,
            mixed("key", _key_mix, zeros),
            mixed("value", _value_mix, Orthogonal(1.0)),
            mixed("receptance", _receptance_mix, zeros),
        )
        k_BLD, v_BLD, r_BLD = (constrain(product_BLD, "batch length hidden") for product_BLD in products)
        k_BLD, v_BLD, r_BLD = at_least_float32(k_BLD), at_least_float32(v_BLD), jax.nn.sigmoid(r_BLD)
        decay_D = parameter(self, "decay", (D,), "hidden", PerChannel(_decay, cfg.depth), "vector")
        bonus_D = parameter(self, "bonus", (D,), "hidden", PerChannel(_bonus, cfg.depth), "vector")
        out_DD = parameter(self, "out", (D, D), "hidden width", zeros, "hidden")

        sums = _empty_sums(cfg, x_BLD.shape[0]) if state is None else state.sums
        name = "sequential" if x_BLD.shape[1] == 1 else algorithm(cfg, "rwkv4")
        rate_D = -jnp.exp(decay_D.astype(v_BLD.dtype))
        wkv_BLD, sums = wkv(name, rate_D, bonus_D.astype(v_BLD.dtype), k_BLD, v_BLD, sums, shared.mask_BL)
        y_BLD = project(r_BLD * wkv_BLD.astype(x_BLD.dtype), out_DD)
        last_BD = last_token(x_BLD, before_BD, shared.mask_BL)
        return y_BLD, None if state is None else TimeState(last_BD, sums), shared


class ChannelMix(nn.Module):
    """sigmoid(r) * value(relu(key)^2), with r and key each from its own interpolation with the token before."""

    config: ModelConfig
    layer: int

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, state: ChannelState | None, shared: Shared
    ) -> tuple[jax.Array, ChannelState | None, Shared]:
        cfg, D = self.config, x_BLD.shape[-1]
        F = cfg.rwkv4.hidden(D)
        mix_init = PerChannel(_key_mix, cfg.depth)
        key_mix_D = parameter(self, "key_mix", (D,), "width", mix_init, "vector")
        receptance_mix_D = parameter(self, "receptance_mix", (D,), "width", mix_init, "vector")
        key_DF = parameter(self, "key", (D, F), "width hidden", Orthogonal(math.sqrt(max(1.0, F / D))), "hidden")
        value_FD = parameter(self, "value", (F, D), "hidden width", zeros, "hidden")
        receptance_DD = parameter(self, "receptance", (D, D), "width hidden", zeros, "hidden")

        before_BD = before(x_BLD, state)
        of_key = (key_mix_D, key_DF, "width hidden")
        of_receptance = (receptance_mix_D, receptance_DD, "width hidden")
        hidden_BLF, receptance_BLD = project_mixed(
            _interpolation, x_BLD, before_BD, shared.mask_BL, of_key, of_receptance
        )
        hidden_BLF = constrain(jnp.square(jax.nn.relu(hidden_BLF)), "batch length hidden")
        r_BLD = jax.nn.sigmoid(constrain(receptance_BLD, "batch length hidden"))
        y_BLD = r_BLD * project(hidden_BLF, value_FD)
        last_BD = last_token(x_BLD, before_BD, shared.mask_BL)
        return y_BLD, None if state is None else ChannelState(last_BD), shared


def _interpolation(x_BLD: jax.Array, before_BLD: jax.Array, share_D: jax.Array) -> jax.Array:
    """As RWKV-4 counts the share: of the token, the rest being its predecessor's."""
    return interpolate(before_BLD, x_BLD, share_D)


def wkv(
    name: str,
    rate_D: jax.Array,
    bonus_D: jax.Array,
    k_BLD: jax.Array,
    v_BLD: jax.Array,
    sums: Sums,
    mask_BL: jax.Array | None,
) -> tuple[jax.Array, Sums]:
    """(wkv (B, L, D), the sums after the last token) by the algorithm of that name; `rate_D` is minus the decay.

    `sequential` and `associative` are below; `pallas` is a kernel (kernels/wkv.py), from KERNEL_LENGTH tokens on.
    """
    name = "sequential" if name == "pallas" and k_BLD.shape[1] < KERNEL_LENGTH else name
    tokens, of_sequence = "batch steps spread", "batch spread"
    in_axes = ("spread", "spread", tokens, tokens, of_sequence, "batch steps")
    # Pallas' kernels do not say which devices their results differ between, so that jax cannot check it.
    program, checked = (_kernel_wkv, False) if name == "pallas" else (ALGORITHMS[name], True)
    split = on_each_device(program, in_axes, (tokens, of_sequence), check_vma=checked)
    return split(rate_D, bonus_D, k_BLD, v_BLD, sums, mask_BL)


def _kernel_wkv(
    rate_D: jax.Array, bonus_D: jax.Array, k_BLD: jax.Array, v_BLD: jax.Array, sums: Sums, mask_BL: jax.Array | None
) -> tuple[jax.Array, Sums]:
    start = (sums.numerator, sums.denominator, sums.exponent)
    wkv_BLD, after = kernel.wkv(rate_D, bonus_D, k_BLD, v_BLD, start, mask_BL, platform())
    return wkv_BLD, Sums(*after)


def sequential_wkv(
    rate_D: jax.Array, bonus_D: jax.Array, k_BLD: jax.Array, v_BLD: jax.Array, sums: Sums, mask_BL: jax.Array | None
) -> tuple[jax.Array, Sums]:
    """(wkv (B, L, D), the sums after the last token), one token after the other; `rate_D` is minus the decay."""

    # A loop's body is its own program: nothing outside could be merged with what it computes again.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def token(sums: Sums, inputs: tuple) -> tuple[Sums, jax.Array]:
        k_BD, v_BD, mask_B = inputs
        wkv_BD = _read(sums, bonus_D[None], k_BD, v_BD)
        after = _add(sums, rate_D[None], Sums(v_BD, jnp.ones_like(v_BD), k_BD))
        if mask_B is not None:
            after = jax.tree.map(lambda new, old: jnp.where(mask_B[:, None], new, old), after, sums)
        return after, wkv_BD

    tokens = jax.tree.map(lambda array: jnp.moveaxis(array, 1, 0), (k_BLD, v_BLD, mask_BL))
    sums, wkv_LBD = jax.lax.scan(token, sums, tokens)
    return jnp.moveaxis(wkv_LBD, 0, 1), sums


def associative_wkv(
    rate_D: jax.Array, bonus_D: jax.Array, k_BLD: jax.Array, v_BLD: jax.Array, sums: Sums, mask_BL: jax.Array | None
) -> tuple[jax.Array, Sums]:
    """`sequential_wkv` as a parallel prefix (Blelloch 1990) over (summed rate, sums) pairs."""
    rate_BLD = jnp.broadcast_to(rate_D[None, None], k_BLD.shape)
    weight_BLD, exponent_BLD = jnp.ones_like(v_BLD), k_BLD
    if mask_BL is not None:
        real_BL1 = mask_BL[:, :, None]
        rate_BLD, weight_BLD = jnp.where(real_BL1, rate_BLD, 0), jnp.where(real_BL1, weight_BLD, 0)
        exponent_BLD = jnp.where(real_BL1, k_BLD, EMPTY_EXPONENT)
    tokens = Sums(v_BLD * weight_BLD, weight_BLD, exponent_BLD)
    start = (jnp.zeros_like(sums.exponent), sums)
    elements = jax.tree.map(lambda a, b: jnp.concatenate([a[:, None], b], axis=1), start, (rate_BLD, tokens))

    def join(left: tuple, right: tuple) -> tuple:
        return left[0] + right[0], _add(left[1], right[0], right[1])

    _, prefixes = jax.lax.associative_scan(join, elements, axis=1)
    before = jax.tree.map(lambda array: array[:, :-1], prefixes)
    return _read(before, bonus_D[None, None], k_BLD, v_BLD), jax.tree.map(lambda array: array[:, -1], prefixes)


ALGORITHMS = {"sequential": sequential_wkv, "associative": associative_wkv}


def _add(sums: Sums, rate: jax.Array, new: Sums) -> Sums:
    """exp(rate) * sums + new, relative to the larger exponent of the two: 12 operations."""
    decayed = sums.exponent + rate
    exponent = jnp.maximum(decayed, new.exponent)
    kept, added = jnp.exp(decayed - exponent), jnp.exp(new.exponent - exponent)
    numerator = kept * sums.numerator + added * new.numerator
    return Sums(numerator, kept * sums.denominator + added * new.denominator, exponent)


def _read(sums: Sums, bonus: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """The mean of the values, this token's with its bonus among them: 12 operations."""
    own = k + bonus
    exponent = jnp.maximum(sums.exponent, own)
    kept, added = jnp.exp(sums.exponent - exponent), jnp.exp(own - exponent)
    return (kept * sums.numerator + added * v) / (kept * sums.denominator + added)


def _decay(channel: jax.Array, channels: int, rise: jax.Array, fall: jax.Array) -> jax.Array:
    return -5 + 8 * (channel / max(1, channels - 1)) ** (0.7 + 1.3 * rise)


def _bonus(channel: jax.Array, channels: int, rise: jax.Array, fall: jax.Array) -> jax.Array:
    return math.log(0.3) + 0.5 * ((channel + 1) % 3 - 1)


def _key_mix(channel: jax.Array, channels: int, rise: jax.Array, fall: jax.Array) -> jax.Array:
    return (channel / channels) ** fall


def _value_mix(channel: jax.Array, channels: int, rise: jax.Array, fall: jax.Array) -> jax.Array:
    return (channel / channels) ** fall + 0.3 * rise


def _receptance_mix(channel: jax.Array, channels: int, rise: jax.Array, fall: jax.Array) -> jax.Array:
    return (channel / channels) ** (0.5 * fall)


def time_params(config: ModelConfig) -> int:
    """Parameters of one time mix: four matrices, three interpolations, decay and bonus."""
    return 4 * config.width**2 + 5 * config.width


def time_matmul_params(config: ModelConfig) -> int:
    """Parameters each token is multiplied with."""
    return 4 * config.width**2


def time_sequence_flops(config: ModelConfig, length: int) -> int:
    """8 L D: each token is written to two sums per channel and read from them. No algorithm has matrix products."""
    return 8 * length * config.width


def time_elementwise_flops(config: ModelConfig, length: int) -> int:
    """3 interpolations of 3 operations a channel, and 12 for reading the sums and 12 for adding to them.

    A parallel prefix adds about twice a token; the kernel counts as the sequential scan that it is. Exponentials and
    maxima count one operation each.
    """
    additions = 2 if config.rwkv4.algorithm == "associative" else 1
    return length * config.width * (9 + 12 + 12 * additions)


def time_state_bytes(config: ModelConfig, length: int, bytes_per_value: int) -> int:
    """The last token, and three sums a channel that are at least float32."""
    return config.width * (bytes_per_value + 3 * max(4, bytes_per_value))


def channel_params(config: ModelConfig) -> int:
    """Parameters of one channel mix: three matrices and two interpolations."""
    return channel_matmul_params(config) + 2 * config.width


def channel_matmul_params(config: ModelConfig) -> int:
    """Parameters each token is multiplied with."""
    return 2 * config.width * config.rwkv4.hidden(config.width) + config.width**2


def channel_elementwise_flops(config: ModelConfig, length: int) -> int:
    """2 interpolations of 3 operations a channel."""
    return 6 * length * config.width


def channel_state_bytes(config: ModelConfig, length: int, bytes_per_value: int) -> int:
    """The last token."""
    return config.width * bytes_per_value
