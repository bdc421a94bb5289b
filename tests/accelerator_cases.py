"""What tests/benchmarks/accelerator.py times, each as a function to run and what is known of it: ours and torch's.

The setting of every case follows from `Sizes`: Llama's architecture of heads of 64 channels, bfloat16 compute, float32
weights, AdamW. A train step is the project's own program. torch: the same sizes of Hugging Face's Llama with float32
weights, autocast to bfloat16, scaled_dot_product_attention, torch.compile and the fused AdamW; decoding in bfloat16 on
both sides, with `generate`'s static cache there.
"""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.config import (
    GREEDY,
    AdamWConfig,
    AttentionConfig,
    DataConfig,
    MeshConfig,
    MlpConfig,
    ModelConfig,
    MoeConfig,
    RunConfig,
    TrainingConfig,
)
from research.generation import Decoding, decode
from research.models import language_model
from research.models.algorithms import names
from research.models.layers import Shared, draw
from research.models.mixers import SEQUENCE_MIXERS
from research.plan import run_cost
from research.sharding import make_mesh, platform
from research.training.compiled import peak_bytes
from research.training.objective import language_modelling
from research.training.runtime import matmul_flops_per_second
from research.training.step import make_program

Runs = dict[str, Callable[[], Any]]
Facts = dict[str, dict[str, Any]]  # run -> what is known of it once it ran; ours: batch, length and what it runs


@dataclass(frozen=True)
class Sizes:
    """`tokens` a step, in sequences of `short` or `long`; `longest` is a sequence alone; `wide` is a second width."""

    width: int = 1024
    depth: int = 12
    vocab_size: int = 32_768
    tokens: int = 16_384
    short: int = 2048
    long: int = 8192
    longest: int = 32_768
    wide: int = 2048
    decoded: int = 64  # sequences
    prompt: int = 128
    new: int = 128


SMALL = Sizes(128, 1, 512, 512, 128, 256, 1536, 192, 4, 8, 8)


def sizes(small: bool) -> Sizes:
    """The issue's, or where it was asked for and on a CPU the small ones."""
    return SMALL if small or platform() == "cpu" else Sizes()


def machine() -> dict[str, Any]:
    """What computes here, and on which of torch's devices the other side would."""
    backend, theirs = platform(), None
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        import torch

        theirs = {"gpu": "cuda" if torch.cuda.is_available() else None, "cpu": "cpu"}.get(backend)
    return {
        "backend": backend,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "torch_device": theirs,
        "torch": torch.__version__ if theirs else None,
        "matmul_flops": matmul_flops_per_second("bfloat16") / (1 if backend == "cpu" else jax.device_count()),
    }


def llama(at: Sizes, width: int | None = None, **fields: Any) -> ModelConfig:
    width = width or at.width
    heads = width // 64
    model = ModelConfig(
        vocab_size=at.vocab_size,
        width=width,
        depth=at.depth,
        attention=AttentionConfig(heads, heads, 64),
        mlp=MlpConfig(11 * width // 4),
        compute_dtype="bfloat16",
    )
    return replace(model, **fields)


def mixture(at: Sizes, **fields: Any) -> ModelConfig:
    """As many active FLOPs as `llama`: 2 of 8 experts, each half as wide as its mlp."""
    return llama(at, pattern="attention:moe", moe=MoeConfig(8, 2, 11 * at.width // 8, **fields))


def ours(item: str, at: Sizes) -> tuple[Runs, Callable[[], Facts]]:
    """An item's runs, and what is said of each after it ran."""
    if item == "layers":
        return _layers(at)
    if item == "decoding":
        return _decoding(at)
    programs = {
        "train short": {"train short": (llama(at), at.short, at.tokens)},
        "train long": {"train long": (llama(at), at.long, at.tokens)},
        "wide": {"wide": (llama(at, at.wide), at.short, at.tokens)},
        "longest": {"longest": (llama(at), at.longest, at.longest)},
        "moe": {
            "dense": (llama(at), at.short, at.tokens),
            "moe": (mixture(at), at.short, at.tokens),
            "moe, capacity 1.25": (mixture(at, capacity_factor=1.25), at.short, at.tokens),
        },
    }[item]
    steps = {name: _train_step(*program) for name, program in programs.items()}

    def facts() -> Facts:
        told = {name: fact for name, (_, fact) in steps.items()}
        stats = jax.local_devices()[0].memory_stats() or {}
        if len(steps) == 1 and "peak_bytes_in_use" in stats:  # of several programs it is the highest
            for fact in told.values():
                fact["peak_bytes"] = stats["peak_bytes_in_use"]
        return told

    return {name: run for name, (run, _) in steps.items()}, facts


def _train_step(model: ModelConfig, length: int, tokens: int) -> tuple[Callable[[], None], dict[str, Any]]:
    batch = max(tokens // length, 1)
    config = RunConfig(
        model=model,
        data=DataConfig(vocab_size=model.vocab_size, tokenizer="sentencepiece"),
        optimizer=AdamWConfig(learning_rate=1e-3, schedule="constant"),
        training=TrainingConfig(steps=1, batch_size=batch, sequence_length=length),
    )
    mesh = make_mesh(MeshConfig(1, 1, 1, 1, 1), jax.devices()[:1])
    program = make_program(config, mesh, language_modelling(config))
    state = program.init()
    stream = np.random.default_rng(0).integers(0, model.vocab_size, (batch, length + 1)).astype(np.int32)
    arrays = {"inputs": stream[:, :-1], "targets": stream[:, 1:], "weights": np.ones((batch, length), np.float32)}
    arrays = jax.device_put(arrays, program.batch_sharding)
    step = program.train.lower(state, arrays, program.numbers).compile()

    def run() -> None:
        nonlocal state
        state, metrics = step(state, arrays, program.numbers)
        if not math.isfinite(metrics["loss_nats"]):  # which waits for the step
            raise ArithmeticError(f"the loss became {metrics['loss_nats']}")
        jax.block_until_ready(state)

    flops = run_cost(config).flops_per_step
    chosen = names(model, platform(), length)
    return run, {"peak_bytes": peak_bytes(step), "flops": flops, "batch": batch, "length": length, "runs": chosen}


LAYERS = ("attention", "mamba", "mamba2", "rwkv7_first", "s4", "h3")


def _layers(at: Sizes) -> tuple[Runs, Callable[[], Facts]]:
    """Each sequence mixer alone: gradients for its parameters and its input."""
    runs, told = {}, {}
    batch = at.tokens // at.short
    for name in LAYERS:
        model = llama(at, pattern=name, depth=1)
        model = replace(model, s4=replace(model.s4, kernel_length=at.short))
        runs[name], told[name] = _layer(model, batch, at.short)
    return runs, lambda: told


def _layer(model: ModelConfig, batch: int, length: int) -> tuple[Callable[[], Any], dict[str, Any]]:
    module = SEQUENCE_MIXERS[model.pattern].module(model, 0)
    x_BLD = jax.random.normal(jax.random.key(1), (batch, length, model.width), model.compute_dtype)
    boxed = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, None, Shared()), x_BLD)["params"]
    weights_BLD = jax.random.normal(jax.random.key(2), x_BLD.shape)

    def loss(params: Any, x_BLD: jax.Array, weights_BLD: jax.Array) -> jax.Array:
        y_BLD = module.apply({"params": params}, x_BLD, None, Shared())[0]
        return (y_BLD.astype(jnp.float32) * weights_BLD).sum()

    arguments = (draw(boxed, jax.random.key(0)), x_BLD, weights_BLD)
    program = jax.jit(jax.grad(loss, (0, 1))).lower(*arguments).compile()
    chosen = names(model, platform(), length)
    facts = {"peak_bytes": peak_bytes(program), "batch": batch, "length": length, "runs": chosen}
    return lambda: jax.block_until_ready(program(*arguments)), facts


def _decoding(at: Sizes) -> tuple[Runs, Callable[[], Facts]]:
    model = llama(at)
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), language_model.init(model, jax.random.key(0)))
    prompt = jax.random.randint(jax.random.key(1), (at.decoded, at.prompt), 0, at.vocab_size)
    run = {"decoding": lambda: decode(model, params, Decoding(at.new, GREEDY), prompt).tokens_BT}
    return run, lambda: {"decoding": {"batch": at.decoded, "length": at.prompt + at.new, "runs": ""}}


def torchs(item: str, at: Sizes, device: str) -> tuple[Runs, Callable[[], Facts]]:
    """Hugging Face's Llama of the same sizes; items `train short`, `train long` and `decoding`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    length = {"train short": at.short, "train long": at.long, "decoding": at.prompt + at.new}[item]
    model = llama(at)
    config = LlamaConfig(
        vocab_size=at.vocab_size,
        hidden_size=at.width,
        intermediate_size=model.mlp.hidden,
        num_hidden_layers=at.depth,
        num_attention_heads=model.attention.heads,
        num_key_value_heads=model.attention.kv_heads,
        max_position_embeddings=length,
        use_cache=item == "decoding",
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    network = LlamaForCausalLM(config).to(device)
    run = _generate(network, at, device) if item == "decoding" else _torch_step(network, at, length, device)

    def finished() -> None:
        run()
        if device == "cuda":
            torch.cuda.synchronize()

    def facts() -> Facts:
        return {item: {"peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None}}

    return {item: finished}, facts


def _torch_step(network: Any, at: Sizes, length: int, device: str) -> Callable[[], None]:
    import torch

    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    tokens = torch.randint(0, at.vocab_size, (at.tokens // length, length), device=device)
    fast = torch.compile(network)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = fast(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()

    return step


def _generate(network: Any, at: Sizes, device: str) -> Callable[[], None]:
    import torch

    network = network.to(torch.bfloat16).eval()
    network.generation_config.eos_token_id = None  # as ours: every sequence gets all its tokens
    prompt = torch.randint(0, at.vocab_size, (at.decoded, at.prompt), device=device)
    asked = {"max_new_tokens": at.new, "do_sample": False, "pad_token_id": 0, "cache_implementation": "static"}

    def run() -> None:
        with torch.inference_mode():
            grown = network.generate(prompt, attention_mask=torch.ones_like(prompt), **asked)
        if grown.shape != (at.decoded, at.prompt + at.new):
            raise ArithmeticError(f"generate gave {tuple(grown.shape)}")

    return run
