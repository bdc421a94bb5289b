import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from research.config import ConfigError
from research.data.batches import batch, validation_batches, windows
from research.data.permutation import epoch_key, permute
from research.data.token_file import TokenFile


def _tokens(train: int, validation: int = 100) -> TokenFile:
    """Every token of the training stream is its own position, so a batch shows which windows it holds."""
    manifest = {"vocab_size": 65_536, "eos_id": 1, "domains": {}}
    held_out = np.arange(1000, 1000 + validation, dtype=np.uint16)
    lengths = np.arange(65_536, dtype=np.uint32) % 7
    return TokenFile(Path("memory"), manifest, np.arange(train, dtype=np.uint16), {"prose": held_out}, lengths)


def _window_starts(made: dict) -> list[int]:
    return made["inputs"][:, 0].tolist()


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


@pytest.mark.parametrize(("length", "batch_size"), [(7, 4), (10, 9), (16, 62), (1, 100)])
def test_every_window_once_an_epoch_without_gaps_between_epochs(length, batch_size):
    tokens = _tokens(1000)
    count = windows(tokens, length)
    assert count == 999 // length
    steps = -(-3 * count // batch_size)
    starts = [s for step in range(steps) for s in
              _window_starts(batch(tokens, step, batch_size=batch_size, sequence_length=length, seed=0))]  # fmt: skip
    epochs = [starts[i * count : (i + 1) * count] for i in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == [i * length for i in range(count)]
    assert epochs[0] != epochs[1] != epochs[2]


def test_targets_are_the_inputs_one_token_later():
    made = batch(_tokens(1000), 3, batch_size=5, sequence_length=8, seed=1)
    assert {name: (array.shape, array.dtype) for name, array in made.items()} == {
        "inputs": ((5, 8), np.int32), "targets": ((5, 8), np.int32), "weights": ((5, 8), np.float32)}  # fmt: skip
    np.testing.assert_array_equal(made["targets"], made["inputs"] + 1)
    np.testing.assert_array_equal(made["inputs"][:, 1:], made["targets"][:, :-1])
    assert made["weights"].min() == 1


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_hosts_together_have_the_global_batch(processes):
    tokens = _tokens(1000)
    for step in (0, 5, 31):  # step 31 crosses from one epoch to the next
        whole = batch(tokens, step, batch_size=8, sequence_length=4, seed=2)
        parts = [batch(tokens, step, batch_size=8, sequence_length=4, seed=2, process_index=i, process_count=processes)
                 for i in range(processes)]  # fmt: skip
        for name in whole:
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])


def test_a_resumed_run_reads_what_the_straight_one_does():
    arguments = {"batch_size": 6, "sequence_length": 9, "seed": 4}
    straight = [batch(_tokens(1000), step, **arguments)["inputs"] for step in range(40)]
    resumed = [batch(_tokens(1000), step, **arguments)["inputs"] for step in range(17, 40)]
    np.testing.assert_array_equal(straight[17:], resumed)


def test_seed_decides_the_order():
    first, second = (batch(_tokens(1000), 0, batch_size=8, sequence_length=8, seed=seed) for seed in (0, 1))
    assert _window_starts(first) != _window_starts(second)


@pytest.mark.parametrize(("changes", "message"), [
    ({"batch_size": 13}, r"training.batch_size = 13: must be from 1 to the 12 windows of 8 tokens"),
    ({"batch_size": 0}, r"training.batch_size = 0"),
    ({"sequence_length": 100}, r"the 0 windows of 100 tokens"),
    ({"process_count": 3}, r"must be a multiple of the 3 processes"),
    ({"process_index": 2, "process_count": 2}, r"process_index = 2: must be from 0 to 1"),
    ({"step": -1}, r"step = -1: must not be negative"),
])  # fmt: skip
def test_wrong_requests_say_what_is_wrong(changes, message):
    arguments = {"step": 0, "batch_size": 4, "sequence_length": 8, "seed": 0, **changes}
    with pytest.raises(ConfigError, match=message):
        batch(_tokens(100), arguments.pop("step"), **arguments)


@pytest.mark.parametrize("max_tokens", [None, 1, 24, 25, 99, 5000])
@pytest.mark.parametrize("processes", [1, 2])
def test_validation_predicts_each_token_once(max_tokens, processes):
    tokens = _tokens(100, validation=97)
    parts = [validation_batches(tokens, "prose", batch_size=4, sequence_length=6, max_tokens=max_tokens,
                                process_index=i, process_count=processes) for i in range(processes)]  # fmt: skip
    expected = np.arange(1000, 1000 + min(97, max_tokens or 97))
    rows = {name: np.concatenate([part.batches[i][name] for i in range(len(parts[0].batches)) for part in parts])
            for name in ("inputs", "targets", "weights")}  # fmt: skip
    real = rows["weights"] == 1
    np.testing.assert_array_equal(rows["targets"][real], expected)
    np.testing.assert_array_equal(rows["inputs"][real], [1, *expected[:-1]])  # 1 is the end-of-document id
    assert rows["weights"][~real].sum() == 0 and (rows["targets"][~real] == 0).all()
    for part in parts:
        assert part.tokens == len(expected) and part.text_bytes == (expected % 7).sum()
        assert {b["inputs"].shape for b in part.batches} == {(4 // processes, 6)}


def test_validation_of_an_unknown_domain_names_those_there_are():
    with pytest.raises(ConfigError, match=r"domain = 'code'.*choose from \['prose'\]"):
        validation_batches(_tokens(100), "code", batch_size=4, sequence_length=6)


def test_training_imports_no_tensorflow():
    code = """
import sys, research.data.batches, research.data.token_file, research.data.prepare
print([name for name in ("tensorflow", "seqio", "jax", "sentencepiece") if name in sys.modules])
"""
    root = Path(__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert result.stdout.strip() == "[]"
