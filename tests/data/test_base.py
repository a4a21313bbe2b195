"""Shuffled orders and schedules: every batch is a pure function of its number, on every rank and in every worker."""

from collections import Counter
from functools import partial

import pytest
import torch

from lightning_nas.data import CIFAR10, NoData, PennTreebank, PyDocs, Schedule
from lightning_nas.data.base import Shuffled, find_split
from lightning_nas.data.images import DrawnStream, ImageSet, random_crop
from lightning_nas.errors import SettingError

# examples, batch size, ranks: divisible or with examples left over, one batch a pass or many
SHAPES = [(12, 4, 1), (10, 3, 1), (7, 7, 1), (24, 4, 2), (23, 4, 2), (31, 2, 3), (4, 1, 4)]


class Numbers:
    """A stream whose batch number i is just i, and its offset."""

    def __init__(self, length, offset=0):
        self.length, self.offset = length, offset

    def __len__(self):
        return self.length

    def get(self, index):
        return self.offset + index


class Position:
    """The trainer's, as a schedule asks for it."""

    def __init__(self, epoch=0, step=0):
        self.epoch, self.step, self.asked = epoch, step, 0

    def __call__(self):
        self.asked += 1
        return self.epoch, self.step


def ranks(size, batch_size, world_size, seed=0):
    return [Shuffled(size, batch_size, seed, rank, world_size) for rank in range(world_size)]


# -- the order of a stream -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "batch_size", "world_size"), SHAPES)
def test_a_pass_has_every_example_once_but_those_left_over(size, batch_size, world_size):
    orders = ranks(size, batch_size, world_size)
    (steps,) = {len(order) for order in orders}
    assert steps == size // (batch_size * world_size)
    for number in range(3):
        indices = range(number * steps, (number + 1) * steps)
        batches = [order.get(index).tolist() for index in indices for order in orders]
        assert {len(batch) for batch in batches} == {batch_size}
        seen = [example for batch in batches for example in batch]
        assert len(set(seen)) == len(seen) == steps * batch_size * world_size  # disjoint batches, disjoint ranks
        assert set(seen) <= set(range(size))
        assert size - len(seen) < batch_size * world_size


@pytest.mark.parametrize(("size", "batch_size", "world_size"), SHAPES)
def test_the_ranks_together_take_what_one_device_with_the_global_batch_takes(size, batch_size, world_size):
    alone = Shuffled(size, batch_size * world_size, seed=0)
    orders = ranks(size, batch_size, world_size)
    for index in range(3 * len(alone)):
        together = torch.cat([order.get(index) for order in orders])
        assert together.tolist() == alone.get(index).tolist()


def test_any_batch_is_the_same_at_every_call_in_every_order():
    sequential = [Shuffled(11, 2, seed=3).get(index).tolist() for index in range(25)]
    order = Shuffled(11, 2, seed=3)
    assert [order.get(index).tolist() for index in range(25)] == sequential
    for index in (24, 0, 7, 7, 4, 5, 23, 6, 0):  # back and forth over the ends of passes
        assert order.get(index).tolist() == sequential[index]


def test_passes_and_seeds_have_orders_of_their_own():
    orders = {
        (seed, number): tuple(Shuffled(40, 40, seed).get(number).tolist()) for seed in range(4) for number in range(4)
    }
    assert len(set(orders.values())) == 16


def test_every_example_is_as_often_left_out_and_as_often_first():
    order = Shuffled(5, 4, seed=0)
    passes = [order.get(number).tolist() for number in range(1000)]
    first = Counter(batch[0] for batch in passes)
    left_out = Counter(*[[example for batch in passes for example in set(range(5)) - set(batch)]])
    for counted in (first, left_out):
        assert sum(counted.values()) == 1000
        assert all(abs(counted[example] - 200) < 4 * (1000 * 0.2 * 0.8) ** 0.5 for example in range(5))


@pytest.mark.parametrize(("batch_size", "world_size"), [(11, 1), (6, 2), (0, 1), (-1, 1)])
def test_a_batch_size_that_gives_no_full_batch_is_refused(batch_size, world_size):
    with pytest.raises(SettingError, match=rf"^batch_size: .*\b10 examples.* got {batch_size}$"):
        Shuffled(10, batch_size, 0, 0, world_size)
    assert len(Shuffled(10, 10 // world_size, 0, 0, world_size)) == 1


# -- the parts that a folder has -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "accepted", "names", "expected"),
    [
        ("train", ("train",), ["train", "test", "val", "notes"], (["train"], [])),
        ("train", ("train",), ["Train", "training", "TRAINING", "trained"], ([], ["TRAINING", "Train", "training"])),
        ("val", ("val", "valid"), ["valid", "val", "dev"], (["val", "valid"], ["dev"])),
        (
            "val",
            ("val.txt",),
            ["valid.txt", "val.txt", "Eval.TXT", "val.csv"],
            (["val.txt"], ["Eval.TXT", "valid.txt"]),
        ),
        ("test", ("test",), [], ([], [])),
    ],
)
def test_names_that_are_read_and_names_that_only_look_like_it(split, accepted, names, expected):
    assert find_split(split, accepted, names) == expected


@pytest.mark.parametrize(("data", "has_test"), [(NoData, False), (PyDocs, True), (CIFAR10, True), (PennTreebank, True)])
def test_a_module_says_whether_it_has_a_test_part(data, has_test):
    assert data().has_test == has_test


# -- schedules -------------------------------------------------------------------------------------------------------


def side_by_side(position=None, num_workers=0):
    streams = {"weights": Numbers(5), "architecture": Numbers(3, offset=1000)}
    return Schedule(streams, 4, position or Position(), num_workers=num_workers)


def alternating(epoch, step):
    """Three steps of weights, then one of the architecture."""
    return {"weights": 3 * epoch + step} if step < 3 else {"architecture": epoch}


def test_without_a_plan_every_stream_delivers_in_every_step():
    schedule = side_by_side()
    expected = {(e, s): {"weights": 4 * e + s, "architecture": 1000 + 4 * e + s} for e in range(3) for s in range(4)}
    assert {key: schedule.get(*key) for key in reversed(expected)} == expected


def test_with_a_plan_just_the_streams_it_names():
    streams = {"weights": Numbers(3), "architecture": Numbers(1, offset=1000)}
    schedule = Schedule(streams, 4, Position(1, 0), alternating)
    expected = [{"weights": 3}, {"weights": 4}, {"weights": 5}, {"architecture": 1001}]
    assert [schedule.get(1, step) for step in range(4)] == expected
    assert list(schedule) == expected


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (2, 1), (1, 3), (1, 4), (0, 9)])
def test_iterating_yields_the_rest_of_the_epoch(epoch, step, num_workers):
    schedule = side_by_side(Position(epoch, step), num_workers)
    assert len(schedule) == 4  # of the whole epoch, wherever it begins
    assert list(schedule) == [schedule.get(epoch, later) for later in range(step, 4)]


def test_the_position_is_read_at_the_first_batch_and_then_no_more():
    """Lightning asks for the iterator before it has restored the epoch of a checkpoint."""
    position = Position(0, 0)
    schedule = side_by_side(position)
    batches = iter(schedule)
    assert position.asked == 0
    position.epoch, position.step = 2, 1
    assert next(batches) == schedule.get(2, 1)
    position.epoch, position.step = 7, 3
    assert list(batches) == [schedule.get(2, 2), schedule.get(2, 3)]
    assert position.asked == 1
    assert list(schedule) == [schedule.get(7, 3)]  # the next epoch asks again


def test_workers_give_the_same_batches_bit_for_bit():
    """Augmentation included: a worker has random numbers of its own, which must not reach a batch."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 1, 8, 8), generator=generator, dtype=torch.uint8)
    crop = partial(random_crop, size=8, padding=2)
    data = ImageSet(images, torch.arange(20), [0.5], [0.25], crop)
    streams = {name: DrawnStream(data, Shuffled(20, 4, seed)) for seed, name in enumerate(("weights", "architecture"))}
    alone, workers = (list(Schedule(streams, 6, Position(1, 1), num_workers=n)) for n in (0, 2))
    assert len(alone) == len(workers) == 5
    for one, other in zip(alone, workers, strict=True):
        assert list(one) == list(other) == ["weights", "architecture"]
        for name in one:
            assert all(torch.equal(a, b) for a, b in zip(one[name], other[name], strict=True))
    assert not torch.equal(alone[0]["weights"][0], alone[1]["weights"][0])


def test_a_schedule_resumes_as_itself_and_refuses_another_one():
    state = side_by_side(Position(3, 2)).state_dict()
    side_by_side(Position(0, 0)).load_state_dict(state)  # where it stood is the trainer's to restore
    streams = {"weights": Numbers(5), "architecture": Numbers(3)}
    others = [
        Schedule(streams, 5, Position()),
        Schedule({**streams, "architecture": Numbers(4)}, 4, Position()),
        Schedule({"weights": Numbers(5)}, 4, Position()),
    ]
    for other in others:
        with pytest.raises(SettingError, match="resume with the same data, batch size and number of devices"):
            other.load_state_dict(state)
