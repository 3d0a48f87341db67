"""Bucket lengths against brute force; schedules by their properties."""

import itertools
import statistics

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bert_emd_jax.encoding.batching import BatchSchedule, choose_bucket_lengths, evaluation_batches

lengths_of_rows = st.lists(st.integers(1, 50), min_size=1, max_size=60)


def padded_tokens(lengths, buckets):
    return sum(min(bucket for bucket in buckets if bucket >= length) for length in lengths)


@settings(deadline=None)
@example([1, 32], 2, None, 50)
@given(lengths_of_rows, st.integers(1, 4), st.sampled_from([None, 1, 8, 16]), st.integers(50, 60))
def test_bucket_lengths_are_the_best(lengths, count, multiple, max_length):
    chosen = choose_bucket_lengths(np.array(lengths), max_length, count, multiple)
    multiple = multiple or (4 if statistics.median(lengths) < 32 else 8)
    assert len(chosen) <= count
    assert all(length % multiple == 0 or length == max_length for length in chosen)
    assert list(chosen) == sorted(set(chosen))
    last = min(-(-max(lengths) // multiple) * multiple, max_length)
    assert chosen[-1] == last
    if multiple == 1:
        return  # too many candidates to try them all
    below = range(multiple, last, multiple)
    combinations = itertools.chain.from_iterable(itertools.combinations(below, size) for size in range(count))
    best = min(padded_tokens(lengths, (*inner, last)) for inner in combinations)
    assert padded_tokens(lengths, chosen) == best


def test_bucket_lengths_refuse_what_they_cannot_hold():
    with pytest.raises(ValueError, match="longer than max_length 8"):
        choose_bucket_lengths(np.array([3, 9]), 8)
    with pytest.raises(ValueError, match="at least one row"):
        choose_bucket_lengths(np.array([], int), 8)


@settings(deadline=None)
@given(lengths_of_rows, st.integers(1, 20), st.integers(1, 4), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_visits_every_row_once(lengths, batch_size, buckets, seed, epoch):
    lengths = np.array(lengths)
    bucket_lengths = choose_bucket_lengths(lengths, 56, buckets)
    schedule = BatchSchedule(lengths, bucket_lengths, batch_size, seed)
    steps = schedule.steps_per_epoch
    assert steps == -(-len(lengths) // batch_size)
    batches = [schedule.batch(epoch * steps + step) for step in range(steps)]
    assert sorted(np.concatenate([batch.rows for batch in batches])) == list(range(len(lengths)))
    assert sum(len(batch.rows) < batch_size for batch in batches) <= 1
    for batch in batches:
        assert batch.length in bucket_lengths
        assert lengths[batch.rows].max() <= batch.length
    # A row leaves its own bucket only among the leftovers of a shorter one.
    own = np.array([min(b for b in bucket_lengths if b >= length) for length in lengths])
    moved = sum((own[batch.rows] != batch.length).sum() for batch in batches)
    assert moved <= (len(bucket_lengths) - 1) * (batch_size - 1)


@settings(deadline=None)
@given(lengths_of_rows, st.integers(1, 20), st.lists(st.integers(0, 300), min_size=1, max_size=20))
def test_a_step_is_a_function_of_seed_and_step(lengths, batch_size, steps):
    lengths = np.array(lengths)
    buckets = choose_bucket_lengths(lengths, 56)
    jumping = BatchSchedule(lengths, buckets, batch_size, 3)
    for step in steps:
        fresh = BatchSchedule(lengths, buckets, batch_size, 3).batch(step)
        np.testing.assert_array_equal(jumping.batch(step).rows, fresh.rows)
        assert jumping.batch(step).length == fresh.length


def test_epochs_and_seeds_differ():
    lengths = np.random.default_rng(0).integers(1, 50, 500)
    buckets = choose_bucket_lengths(lengths, 56)

    def epoch(seed, number):
        schedule = BatchSchedule(lengths, buckets, 32, seed)
        steps = range(number * schedule.steps_per_epoch, (number + 1) * schedule.steps_per_epoch)
        return np.concatenate([schedule.batch(step).rows for step in steps]).tolist()

    orders = [epoch(0, 0), epoch(0, 1), epoch(1, 0)]
    assert len({tuple(order) for order in orders}) == 3
    assert epoch(0, 1) == orders[1]


def test_buckets_come_in_mixed_order():
    lengths = np.repeat([8, 16, 32], 320)
    schedule = BatchSchedule(lengths, (8, 16, 32), 32, 0)
    order = [schedule.batch(step).length for step in range(schedule.steps_per_epoch)]
    assert sorted(order) != order
    assert sorted(order) == [8] * 10 + [16] * 10 + [32] * 10


@settings(deadline=None)
@given(lengths_of_rows, st.integers(1, 20))
def test_evaluation_covers_every_row_once(lengths, batch_size):
    lengths = np.array(lengths)
    batches = evaluation_batches(lengths, choose_bucket_lengths(lengths, 56), batch_size)
    assert sorted(np.concatenate([batch.rows for batch in batches])) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch_size)
    assert [batch.length for batch in batches] == sorted(batch.length for batch in batches)
    assert all(lengths[batch.rows].max() <= batch.length for batch in batches)


def test_schedules_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="fits into none"):
        BatchSchedule(np.array([9]), (8,), 2, 0)
    with pytest.raises(ValueError, match="must increase"):
        BatchSchedule(np.array([9]), (16, 8), 2, 0)
    with pytest.raises(ValueError, match="at least one row"):
        BatchSchedule(np.array([], int), (8,), 2, 0)
    with pytest.raises(ValueError, match="count from 0"):
        BatchSchedule(np.array([8]), (8,), 2, 0).batch(-1)
