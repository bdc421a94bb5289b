"""RWKV-7 (Peng 2025, arXiv 2503.14456): time mix and channel mix, initialised as the published trainer's modules are.

The time mix keeps a matrix per head as its state and changes it by the generalised delta rule (delta_rule.py). The
first layer is `rwkv7_first`: it has no share of its own value to give up, and its values are what later layers mix in.

The published trainer also doubles the learning rate of the decay's bias, and a script of its own redraws the large
matrices as orthogonal ones before a long run; neither is done here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from research.config import ModelConfig
from research.models.algorithms import algorithm
from research.models.initialisers import FanIn, Initializer, Orthogonal, Uniform, ones, zeros
from research.models.layers import Shared, at_least_float32, parameter, project
from research.models.recurrent import delta_rule
from research.models.recurrent.token_shift import PerChannel, before, interpolate, last_token, project_mixed
from research.sharding import constrain

SLOWEST_DECAY = math.exp(-0.5)  # a token's decay lies between exp(-SLOWEST_DECAY) and 1
HEADS = "heads head_dim"


class TimeState(flax.struct.PyTreeNode):
    """The last token, and a matrix per head, value by key channels, at least float32: one size for every length."""

    last_BD: jax.Array
    heads_BHKK: jax.Array


class ChannelState(flax.struct.PyTreeNode):
    """The last token."""

    last_BD: jax.Array


def init_time_state(config: ModelConfig, batch: int, max_length: int) -> TimeState:
    """Nothing read."""
    return TimeState(jnp.zeros((batch, config.width), config.compute_dtype), _empty_heads(config, batch))


def init_channel_state(config: ModelConfig, batch: int, max_length: int) -> ChannelState:
    """Nothing read."""
    return ChannelState(jnp.zeros((batch, config.width), config.compute_dtype))


def _empty_heads(config: ModelConfig, batch: int) -> jax.Array:
    K = config.rwkv7.head_dim
    return jnp.zeros((batch, config.width // K, K, K), jnp.promote_types(config.compute_dtype, jnp.float32))


@dataclass(frozen=True)
class _Mix:
    """Share of the token before, from nearly 1 in the first channels to nearly 0 in the last."""

    power: float

    def __call__(self, channel: jax.Array, channels: int, rise: jax.Array, fall: jax.Array) -> jax.Array:
        return 1 - (channel / channels) ** (self.power * fall)


@dataclass(frozen=True)
class _Line:
    """middle + slope * x, x from -1/2 to 1/2 over the channels, + curve * z, z from -1 to 1 over each head's."""

    head_dim: int
    middle: float
    slope: float = 0.0
    curve: float = 0.0

    def __call__(self, channel: jax.Array, channels: int, rise: jax.Array, fall: jax.Array) -> jax.Array:
        line = channel / max(1, channels - 1) - 0.5
        return self.middle + self.slope * line + self.curve * _within_heads(channel, self.head_dim)


@dataclass(frozen=True)
class _Decay:
    """Bias of the decay: -5.5 in the first channels to 0.5 in the last, more steeply so in higher layers."""

    head_dim: int

    def __call__(self, channel: jax.Array, channels: int, rise: jax.Array, fall: jax.Array) -> jax.Array:
        ramp = -6 + 6 * (channel / max(1, channels - 1)) ** (1 + jnp.asarray(rise) ** 0.3)
        return ramp + 0.5 + 2.5 * _within_heads(channel, self.head_dim)


def _within_heads(channel: jax.Array, head_dim: int) -> jax.Array:
    middle = (head_dim - 1) / 2
    offset = (channel % head_dim - middle) / max(middle, 0.5)
    return offset * jnp.abs(offset)


def _channel_mix(channel: jax.Array, channels: int, rise: jax.Array, fall: jax.Array) -> jax.Array:
    return 1 - (channel / channels) ** (fall**4)


class TimeMix(nn.Module):
    """out(gate * (norm(S r) + (r . bonus k) v)), with S from the generalised delta rule.

    first: the values are handed on in `shared`; else a learned share of the first layer's replaces as much of the own.
    """

    config: ModelConfig
    layer: int
    first: bool = False

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, state: TimeState | None, shared: Shared
    ) -> tuple[jax.Array, TimeState | None, Shared]:
        D, K = x_BLD.shape[-1], self.config.rwkv7.head_dim
        before_BD = before(x_BLD, state)
        (r_BLHK, k_BLHK, v_BLHK), narrow = self._products(x_BLD, before_BD, shared.mask_BL)
        if self.first:
            if any("rwkv7_time" in layer for layer in self.config.layers):
                shared = shared.replace(first_value_BLD=v_BLHK.reshape(x_BLD.shape))
        else:
            share_BLHK = self._low_rank("share", narrow["share"], _Line(K, 0.73, -0.4))
            first_BLHK = shared.first_value_BLD.reshape(v_BLHK.shape)
            v_BLHK += (first_BLHK - v_BLHK) * jax.nn.sigmoid(share_BLHK).astype(v_BLHK.dtype)
        decay_BLHK = self._low_rank("decay", jnp.tanh(narrow["decay"]), _Decay(K))
        rate_BLHK = self._low_rank("rate", narrow["rate"], _Line(K, -0.19, 0.4, 0.3))
        gate_BLHK = self._low_rank("gate", jax.nn.sigmoid(narrow["gate"]), None)

        y_BLHK, heads_BHKK = self._recur(r_BLHK, decay_BLHK, k_BLHK, v_BLHK, rate_BLHK, state, shared.mask_BL)
        out_HKD = parameter(self, "out", (D // K, K, D), "heads head_dim width", zeros, "hidden", contracted=2)
        y_BLD = project(y_BLHK.astype(x_BLD.dtype) * gate_BLHK, out_HKD, contracted=2)
        last_BD = last_token(x_BLD, before_BD, shared.mask_BL)
        return y_BLD, None if state is None else TimeState(last_BD, heads_BHKK), shared

    def _products(
        self, x_BLD: jax.Array, before_BD: jax.Array, mask_BL: jax.Array | None
    ) -> tuple[list[jax.Array], dict[str, jax.Array]]:
        """Receptance, key and value (B, L, H, K), and what low ranks carry (B, L, R): each of its own interpolation."""
        D, K = x_BLD.shape[-1], self.config.rwkv7.head_dim
        ranks = self.config.rwkv7.ranks(D)

        def share(name: str, power: float) -> jax.Array:
            return parameter(self, f"{name}_mix", (D,), "width", PerChannel(_Mix(power), self.config.depth), "vector")

        def of_heads(name: str, share_D: jax.Array, bound: float) -> tuple[jax.Array, jax.Array, str]:
            axes, init = f"width {HEADS}", FanIn(Uniform, bound)
            return share_D, parameter(self, name, (D, D // K, K), axes, init, "hidden"), axes

        def down(name: str, share_D: jax.Array, rank: int) -> tuple[jax.Array, jax.Array, str]:
            axes, ratio = "width hidden", self._rank_ratio(name)
            down_DR = parameter(self, f"{name}_down", (D, rank), axes, zeros, "into_rank", rank_ratio=ratio)
            return share_D, down_DR, axes

        value_share_D = share("value", 0.7)
        wide = (
            of_heads("receptance", share("receptance", 0.2), 0.5),
            of_heads("key", share("key", 0.7), 0.05),
            of_heads("value", value_share_D, 0.5),
        )
        narrow = {
            "decay": down("decay", share("decay", 0.9), ranks.decay),
            "rate": down("rate", share("rate", 0.9), ranks.rate),
            "gate": down("gate", share("gate", 0.2), ranks.gate),
        }
        if not self.first:
            narrow["share"] = down("share", value_share_D, ranks.value)
        products = project_mixed(interpolate, x_BLD, before_BD, mask_BL, *wide, *narrow.values())
        heads = [constrain(product_BLHK, f"batch length {HEADS}") for product_BLHK in products[:3]]
        return heads, dict(zip(narrow, products[3:]))

    def _low_rank(self, name: str, x_BLR: jax.Array, bias: Callable | None) -> jax.Array:
        """x up + bias, split into heads; starts as the bias alone."""
        D, K, rank = self.config.width, self.config.rwkv7.head_dim, x_BLR.shape[-1]
        up_init = Orthogonal(0.1 * math.sqrt(max(1.0, rank / D)))
        ratio = self._rank_ratio(name)
        up_RHK = parameter(
            self, f"{name}_up", (rank, D // K, K), f"rank {HEADS}", up_init, "from_rank", rank_ratio=ratio
        )
        y_BLHK = constrain(project(constrain(x_BLR, "batch length"), up_RHK), f"batch length {HEADS}")
        if bias is None:
            return y_BLHK
        y_BLHK = at_least_float32(y_BLHK)  # a decay's distance from 1 is lost in a type with fewer digits
        return y_BLHK + self._vector(f"{name}_bias", bias, y_BLHK)

    def _rank_ratio(self, name: str) -> float:
        """Of a low-rank map's rank to the base model's."""
        base_width = self.config.parametrisation.base_of(self.config.width)
        ratios = self.config.rwkv7.rank_ratios(self.config.width, base_width)
        return ratios.value if name == "share" else getattr(ratios, name)

    def _vector(self, name: str, formula: Callable | Initializer, like_BLHK: jax.Array) -> jax.Array:
        """A parameter a channel, split into heads, ready to meet an activation in its dtype."""
        init = formula if formula in (ones, zeros) else PerChannel(formula, self.config.depth)
        vector_HK = parameter(self, name, like_BLHK.shape[2:], HEADS, init, "vector")
        return vector_HK.astype(like_BLHK.dtype)[None, None]

    def _recur(
        self,
        r_BLHK: jax.Array,
        decay_BLHK: jax.Array,
        k_BLHK: jax.Array,
        v_BLHK: jax.Array,
        rate_BLHK: jax.Array,
        state: TimeState | None,
        mask_BL: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array]:
        """What the heads read, normed, with this token's bonus, in float32; and their state."""
        cfg = self.config.rwkv7
        r, k, v = (at_least_float32(x) for x in (r_BLHK, k_BLHK, v_BLHK))
        rate = jax.nn.sigmoid(rate_BLHK)
        direction = _unit(k * self._vector("removal", _Line(cfg.head_dim, 0.71, -0.1), k))
        k = k * (1 + (rate - 1) * self._vector("key_rate", _Line(cfg.head_dim, 1.02), k))
        log_decay = -SLOWEST_DECAY * jax.nn.sigmoid(decay_BLHK)
        tokens = (r, log_decay, k, v, -direction, direction * rate)
        if mask_BL is not None:
            tokens = tuple(jnp.where(mask_BL[:, :, None, None], x, 0) for x in tokens)
        heads_BHKK = _empty_heads(self.config, r.shape[0]) if state is None else state.heads_BHKK
        name = "sequential" if r.shape[1] == 1 else algorithm(self.config, "rwkv7")
        y, heads_BHKK = delta_rule.delta_rule(name, cfg.chunk, tokens, heads_BHKK)

        centred = y - y.mean(axis=-1, keepdims=True)
        epsilon = cfg.head_dim * self.config.norm_epsilon  # 64e-5 in the published models
        normed = centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + epsilon)
        y = normed * self._vector("norm_gain", ones, y) + self._vector("norm_bias", zeros, y)
        bonus = jnp.sum(r * k * self._vector("bonus", _Line(cfg.head_dim, -0.04), k), axis=-1, keepdims=True)
        return y + bonus * v, heads_BHKK


def _unit(x: jax.Array) -> jax.Array:
    """x / max(|x|, 1e-12) over the last axis, as torch normalises."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


class ChannelMix(nn.Module):
    """value(relu(key(x))^2), x interpolated with the token before."""

    config: ModelConfig
    layer: int

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, state: ChannelState | None, shared: Shared
    ) -> tuple[jax.Array, ChannelState | None, Shared]:
        D = x_BLD.shape[-1]
        F = self.config.rwkv7.hidden(D)
        mix_D = parameter(self, "key_mix", (D,), "width", PerChannel(_channel_mix, self.config.depth), "vector")
        key_DF = parameter(self, "key", (D, F), "width hidden", FanIn(Uniform, 0.5), "hidden")
        value_FD = parameter(self, "value", (F, D), "hidden width", zeros, "hidden")
        before_BD = before(x_BLD, state)
        of_key = (mix_D, key_DF, "width hidden")
        (hidden_BLF,) = project_mixed(interpolate, x_BLD, before_BD, shared.mask_BL, of_key)
        hidden_BLF = constrain(jnp.square(jax.nn.relu(hidden_BLF)), "batch length hidden")
        last_BD = last_token(x_BLD, before_BD, shared.mask_BL)
        return project(hidden_BLF, value_FD), None if state is None else ChannelState(last_BD), shared


def time_params(config: ModelConfig, first: bool = False) -> int:
    """Matrices, low-rank maps and 14 vectors: 6 interpolations, 3 biases (2 if `first`), 3 for keys, 2 of the norm."""
    return time_matmul_params(config, first) + config.width * (13 if first else 14)


def time_matmul_params(config: ModelConfig, first: bool = False) -> int:
    """Parameters each token is multiplied with: 4 square matrices, 4 low-rank maps, one fewer if `first`."""
    ranks = config.rwkv7.ranks(config.width)
    low_rank = ranks.decay + ranks.rate + ranks.gate + (0 if first else ranks.value)
    return 4 * config.width**2 + 2 * config.width * low_rank


def time_sequence_flops(config: ModelConfig, length: int) -> int:
    """8 L D K: each token is read from a state of D K numbers and written to it twice, what it removes and itself."""
    return 8 * length * config.width * config.rwkv7.head_dim


def time_executed_flops(config: ModelConfig, length: int) -> int:
    """Matrix products of the delta rule (delta_rule.matmul_flops)."""
    cfg = config.rwkv7
    return delta_rule.matmul_flops(cfg.algorithm, cfg.chunk, length, config.width // cfg.head_dim, cfg.head_dim)


def time_elementwise_flops(config: ModelConfig, length: int) -> int:
    """6 interpolations of 3 operations a channel, and what the delta rule does outside of matrix products."""
    cfg = config.rwkv7
    heads = config.width // cfg.head_dim
    rule = delta_rule.elementwise_flops(cfg.algorithm, cfg.chunk, length, heads, cfg.head_dim)
    return 18 * length * config.width + rule


def time_state_bytes(config: ModelConfig, length: int, bytes_per_value: int) -> int:
    """The last token, and head_dim numbers a channel that are at least float32."""
    return config.width * (bytes_per_value + config.rwkv7.head_dim * max(4, bytes_per_value))


def channel_params(config: ModelConfig) -> int:
    """Two matrices and an interpolation."""
    return channel_matmul_params(config) + config.width


def channel_matmul_params(config: ModelConfig) -> int:
    """Parameters each token is multiplied with."""
    return 2 * config.width * config.rwkv7.hidden(config.width)


def channel_elementwise_flops(config: ModelConfig, length: int) -> int:
    """An interpolation of 3 operations a channel."""
    return 3 * length * config.width


def channel_state_bytes(config: ModelConfig, length: int, bytes_per_value: int) -> int:
    """The last token."""
    return config.width * bytes_per_value
