import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_tokens import in_memory

from research.config import (
    ConfigError,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    RunConfig,
    SourceConfig,
    TrainingConfig,
)
from research.data.batches import text_digests, text_examples, validation_batches
from research.data.mixture import Mixture, mixture_of
from research.data.permutation import epoch_key, permute
from research.data.token_file import TokenFile

NAMES = ("a", "b", "c")


def _run(rates=(1.0,), final=(), length=8, batch_size=4, steps=20, tokens=1000, **changes) -> RunConfig:
    """A run on sources a, b, c with these rates; one epoch of the mixture holds `tokens`."""
    finals = final or (None,) * len(rates)
    sources = tuple(SourceConfig(name, name, rate, "text", last) for name, rate, last in zip(NAMES, rates, finals))
    training = {"steps": steps, "batch_size": batch_size, "sequence_length": length, "seed": 3}
    data = {"sources": sources, "train_tokens": tokens, "vocab_size": 65_536, "validation_tokens": 10**6}
    return RunConfig(
        model=ModelConfig(vocab_size=65_536),
        data=DataConfig(**data | changes.pop("data", {})),
        training=TrainingConfig(**training | changes),
        evaluation=EvaluationConfig(tokens=10**6, batch_size=4),
    )


def _files(config: RunConfig, train: int = 3000, validation: int = 97) -> dict[str, TokenFile]:
    """Every training token is its position, 10,000 further on per source, so a batch shows what it holds."""
    return {
        source.name: in_memory(
            np.arange(train, dtype=np.uint16) + 10_000 * i, np.arange(1000, 1000 + validation, dtype=np.uint16), 65_536
        )
        for i, source in enumerate(config.data.sources)
    }


def _starts(config: RunConfig, files=None) -> np.ndarray:
    """The first token of every row of training, in order."""
    batch = text_examples(config, files or _files(config)).batch
    return np.concatenate([batch(step, 0, 1)["inputs"][:, 0] for step in range(config.training.steps)])


@pytest.mark.parametrize("size", [*range(1, 40), 63, 64, 65, 100, 127, 1000, 1023, 1024, 1025, 4097, 65_537, 99_991])
def test_permutation_is_a_bijection(size):
    for epoch in range(3):
        key = epoch_key(7, np.full(size, epoch))
        assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


def test_permutation_does_not_depend_on_what_is_asked_together():
    size = 1003
    whole = permute(np.arange(size), size, epoch_key(3, np.zeros(size, int)))
    parts = [permute(np.array([i]), size, epoch_key(3, np.zeros(1, int)))[0] for i in range(0, size, 37)]
    assert whole[::37].tolist() == parts


def test_large_sizes_stay_in_range_without_repeats():
    size, some = 10**12 + 39, np.arange(0, 10**12, 10**8 + 7)
    image = permute(some, size, epoch_key(0, np.zeros(some.size, int)))
    assert image.min() >= 0 and image.max() < size and len(set(image.tolist())) == some.size


def test_images_are_uniform_over_seeds_and_epochs():
    """Where index 5 of 10 goes over 4000 keys: chi-square with 9 degrees of freedom exceeds 27.9 once in 1000."""
    of_seeds = np.array([epoch_key(seed, np.zeros(1, int))[0] for seed in range(4000)])
    for keys in (epoch_key(1, np.arange(4000)), of_seeds):
        counts = np.bincount(permute(np.full(4000, 5), 10, keys), minlength=10)
        assert ((counts - 400) ** 2 / 400).sum() < 27.9


def test_neighbours_part():
    """Over n = 20000 the correlation of a random order has standard deviation 1/sqrt(n); four of them are allowed."""
    image = permute(np.arange(20_000), 20_000, epoch_key(0, np.zeros(20_000, int)))
    assert abs(np.corrcoef(np.arange(20_000), image)[0, 1]) < 4 / np.sqrt(20_000)
    assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 4 / np.sqrt(20_000)


MIXTURES = [
    Mixture((1.0,), (1.0,), 1.0, 500, 0),
    Mixture((0.7, 0.3), (0.7, 0.3), 1.0, 500, 1),
    Mixture((0.5, 0.3, 0.2), (0.0, 0.3, 0.7), 0.25, 500, 2),
    Mixture((1.0, 0.0, 0.0), (0.1, 0.9, 0.0), 1.0, 500, 3),
]


@pytest.mark.parametrize("mixture", MIXTURES)
def test_each_source_is_within_a_row_of_its_share_at_every_moment(mixture):
    sources, rank = mixture.draws(0, 520)  # 20 rows past the planned end, where the last shares go on
    time = (np.arange(5001) / 5000) * mixture.rows
    begin = mixture.rows * (1 - mixture.shift)
    way = np.clip((time - begin) / (mixture.rows - begin), 0, 1)
    for source, (first, final) in enumerate(zip(mixture.first, mixture.final)):
        np.testing.assert_array_equal(rank[sources == source], np.arange((sources == source).sum()))
        share = first + (final - first) * way
        due = np.concatenate([[0], np.cumsum((share[1:] + share[:-1]) / 2 * np.diff(time))])  # exact: linear in between
        given = np.concatenate([[0], np.cumsum(sources[: mixture.rows] == source)])
        off = given - np.interp(np.arange(mixture.rows + 1), time, due)
        # Less than one row of rounding per source: rows that fall due at one moment are numbered one after another.
        assert np.abs(off).max() < len(mixture.first)


@pytest.mark.parametrize("mixture", MIXTURES)
def test_a_schedule_does_not_depend_on_where_one_looks(mixture):
    sources, rank = mixture.draws(0, 500)
    for row in (0, 1, 2, 3, 7, 100, 374, 375, 376, 493):
        some_sources, some_rank = mixture.draws(row, 7)
        np.testing.assert_array_equal(some_sources, sources[row : row + 7])
        np.testing.assert_array_equal(some_rank, rank[row : row + 7])
        given = [(sources[:row] == source).sum() for source in range(len(mixture.first))]
        np.testing.assert_array_equal(mixture.given_before(row), given)


def test_a_schedule_of_ten_billion_rows_loses_none():
    """Far from the start, where a share's increments are near the precision of its sum."""
    rows = 10**10
    mixture = Mixture((0.999999, 1e-6), (0.5, 0.5), 1.0, rows, 0)
    for row in (rows // 3, rows - 2000):
        (sources, rank), (later_sources, later_rank) = mixture.draws(row, 1000), mixture.draws(row + 500, 500)
        np.testing.assert_array_equal(sources[500:], later_sources)
        np.testing.assert_array_equal(rank[500:], later_rank)
        for source in (0, 1):
            assert set(np.diff(rank[sources == source])) == {1}


@pytest.mark.parametrize(("rates", "length", "batch_size"), [((1.0,), 7, 4), ((0.7, 0.3), 10, 9), ((2, 1, 1), 16, 15)])
def test_every_window_once_an_epoch_without_gaps_between_epochs(rates, length, batch_size):
    config = _run(rates, length=length, batch_size=batch_size, steps=3000 // (length * batch_size) + 1, max_epochs=4)
    starts = _starts(config)
    assert sum(share for share in config.data.mean_shares.values()) == pytest.approx(1)
    for source, name in enumerate(config.data.mean_shares):
        count = -(-config.data.source_tokens(name) // length) + 1
        own = starts[starts // 10_000 == source] % 10_000
        epochs = [own[i : i + count].tolist() for i in range(0, own.size, count)]
        assert len(epochs) >= 3 and epochs[0] != epochs[1]
        for epoch in epochs[:-1]:
            assert sorted(epoch) == [i * length for i in range(count)]
        assert len(set(epochs[-1])) == len(epochs[-1])


def test_targets_are_the_inputs_one_token_later():
    made = text_examples(_run(batch_size=5), _files(_run())).batch(3, 0, 1)
    assert {name: (array.shape, array.dtype) for name, array in made.items()} == {
        "inputs": ((5, 8), np.int32), "targets": ((5, 8), np.int32), "weights": ((5, 8), np.float32)}  # fmt: skip
    np.testing.assert_array_equal(made["targets"], made["inputs"] + 1)
    np.testing.assert_array_equal(made["inputs"][:, 1:], made["targets"][:, :-1])
    assert made["weights"].min() == 1


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_hosts_together_have_the_global_batch(processes):
    config = _run((0.7, 0.3), batch_size=8, steps=600, length=4, max_epochs=30)
    batch = text_examples(config, _files(config)).batch
    for step in (0, 5, 511, 512):  # rows are scheduled 4,096 at a time: step 512 is the first of the next
        whole = batch(step, 0, 1)
        parts = [batch(step, i, processes) for i in range(processes)]
        for name in whole:
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])


def test_a_resumed_run_reads_what_the_straight_one_does():
    config = _run((0.7, 0.3), final=(0.1, 0.9), batch_size=6, length=9, steps=800, max_epochs=50)
    straight = text_examples(config, _files(config)).batch
    whole = [straight(step, 0, 1)["inputs"] for step in range(700)]
    resumed = text_examples(config, _files(config)).batch
    np.testing.assert_array_equal(whole[677:], [resumed(step, 0, 1)["inputs"] for step in range(677, 700)])


def test_seed_decides_the_order_and_sources_have_orders_of_their_own():
    assert _starts(_run()).tolist() != _starts(_run(seed=4)).tolist()
    starts = _starts(_run((1, 1)))
    first, second = (starts[starts // 10_000 == source] % 10_000 for source in (0, 1))
    assert first.tolist() != second.tolist()


def test_one_epoch_of_the_tokens_asked_for_repeats_nothing_and_one_step_more_is_refused():
    """Shares are counted in rows, up to one off, so each source has one window to spare."""
    config = _run((0.7, 0.3), length=10, batch_size=5, steps=20)
    starts = _starts(config)
    assert config.training.tokens == config.data.train_tokens and len(set(starts.tolist())) == starts.size == 100
    with pytest.raises(ConfigError, match=r"1.05 epochs of the 1,000 in data.train_tokens"):
        _run((0.7, 0.3), length=10, batch_size=5, steps=21)


def test_a_source_that_runs_out_is_named_whatever_the_mean():
    """The second source has 30 windows, a fifth of what its share asks for."""
    config = _run((0.7, 0.3), tokens=10_000, steps=250)
    files = {**_files(config, 8000), "b": in_memory(np.arange(241, dtype=np.uint16), np.arange(9, dtype=np.uint16))}
    with pytest.raises(ConfigError, match=r"takes 300 windows of 8 tokens from source 'b', which are 10.00 epochs of"):
        text_examples(config, files)
    text_examples(replace(config, training=replace(config.training, max_epochs=10)), files)


@pytest.mark.parametrize(("arguments", "message"), [
    ((0, 0, 3), r"must be a multiple of the 3 processes"),
    ((0, 2, 2), r"process_index = 2: must be from 0 to 1"),
    ((-1, 0, 1), r"step = -1: must not be negative"),
])  # fmt: skip
def test_wrong_requests_say_what_is_wrong(arguments, message):
    with pytest.raises(ConfigError, match=message):
        text_examples(_run(), _files(_run())).batch(*arguments)


@pytest.mark.parametrize("max_tokens", [None, 1, 24, 25, 99, 5000])
@pytest.mark.parametrize("processes", [1, 2])
def test_validation_predicts_each_token_once(max_tokens, processes):
    files = _files(_run())
    parts = [validation_batches(files, "a", batch_size=4, sequence_length=6, max_tokens=max_tokens,
                                process_index=i, process_count=processes) for i in range(processes)]  # fmt: skip
    expected = np.arange(1000, 1000 + min(97, max_tokens or 97))
    rows = {name: np.concatenate([part.batches[i][name] for i in range(len(parts[0].batches)) for part in parts])
            for name in ("inputs", "targets", "weights")}  # fmt: skip
    real = rows["weights"] == 1
    np.testing.assert_array_equal(rows["targets"][real], expected)
    np.testing.assert_array_equal(rows["inputs"][real], [1, *expected[:-1]])  # 1 is the end-of-document id
    assert rows["weights"][~real].sum() == 0 and (rows["targets"][~real] == 0).all()
    for part in parts:
        assert part.tokens == part.text_bytes == len(expected)
        assert {b["inputs"].shape for b in part.batches} == {(4 // processes, 6)}


def test_held_out_text_of_less_than_a_row_is_refused_unless_no_more_is_asked():
    files = _files(_run(), validation=7)
    message = "data.validation_tokens = 1000000: source 'a' holds 7 held-out tokens in .*, too few for one row of 8"
    for read in (text_examples, text_digests):
        with pytest.raises(ConfigError, match=message):
            read(_run(length=8), files)
    assert text_examples(_run(length=7), files).validation("a").tokens == 7
    assert text_examples(_run(length=8, data={"validation_tokens": 5}), files).validation("a").tokens == 5


def test_validation_is_limited_by_either_config_and_an_unknown_domain_is_named():
    config = _run(data={"validation_tokens": 40})
    assert text_examples(config, _files(config)).validation("a").tokens == 40
    with pytest.raises(ConfigError, match=r"domain = 'code'.*choose from \['a'\]"):
        validation_batches(_files(config), "code", batch_size=4, sequence_length=6)


def test_digests_are_of_what_a_run_can_read():
    config = _run((0.7, 0.3))
    digests = text_digests(config, _files(config))
    assert list(digests) == ["a.train", "a.validation", "b.train", "b.validation"]
    count = -(-700 // 8) + 1
    assert digests["a.train"] == hashlib.sha256(np.arange(count * 8 + 1, dtype="<u2").tobytes()).hexdigest()
    assert text_digests(config, _files(config, train=4000)) == digests  # a longer file that begins with the same text
    changed = _files(config)
    changed["b"].train[100] = 7
    assert {name for name, value in text_digests(config, changed).items() if value != digests[name]} == {"b.train"}


def test_mixture_follows_the_config():
    config = _run((3, 1), final=(1, 1), steps=10, batch_size=4, data={"shift_fraction": 0.5})
    assert mixture_of(config) == Mixture((0.75, 0.25), (0.5, 0.5), 0.5, 40, 3)
    assert config.data.mean_shares == pytest.approx({"a": 0.75 * 0.75 + 0.25 * 0.5, "b": 0.75 * 0.25 + 0.25 * 0.5})
    assert text_examples(config, _files(config)).domains == config.data.mean_shares
    given = mixture_of(config).given_before(40)
    assert np.abs(given - 40 * np.array(list(config.data.mean_shares.values()))).max() <= 1


def test_training_imports_no_tensorflow():
    code = """
import sys, research.data.batches, research.data.token_file, research.data.prepare
print([name for name in ("tensorflow", "seqio", "jax", "sentencepiece") if name in sys.modules])
"""
    root = Path(__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert result.stdout.strip() == "[]"
