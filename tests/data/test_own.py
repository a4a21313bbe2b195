import random
from itertools import islice

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

from lightning_nas.data import DataModule, Digits, OwnData, Schedule, as_data
from lightning_nas.data.digits import source_digits
from lightning_nas.errors import SettingError


class PlainDigits(Digits):
    """Without augmentation, so that a user's set can be the same."""

    def transform(self, augment):
        return None


def digits(test=False):
    """What a user's set of them is: normalised images and labels."""
    images, labels = source_digits(test)
    return TensorDataset((images.float() / 255 - 0.305) / 0.376, labels)


class Drawn(Dataset):
    """Examples with something of each generator in them."""

    classes = ("a", "b")

    def __init__(self, count=24, as_dict=False):
        self.count, self.as_dict = count, as_dict

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = torch.full((1, 4, 4), float(index))
        image[0, 0, :3] = torch.tensor([torch.rand(()).item(), np.random.rand(), random.random()])  # noqa: NPY002
        return {"image": image, "label": index % 2} if self.as_dict else (image, index % 2)


class Endless(IterableDataset):
    def __iter__(self):
        return iter([])


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return len(a) == len(b) and all(map(equal, a, b))


@pytest.mark.parametrize("part", ["weights", "architecture", "train"])
def test_the_same_examples_come_as_from_our_own_data(part):
    own, ours = OwnData(digits(), test=digits(True), batch_size=32), PlainDigits(batch_size=32)
    a, b = own.stream(part, 3), ours.stream(part, 3)
    assert len(a) == len(b)
    for index in (0, len(a) - 1, len(a), 3 * len(a) + 1):
        torch.testing.assert_close(a.get(index), tuple(b.get(index)))
    for ours_, own_ in zip(ours.evaluation(part, 3), own.evaluation(part, 3), strict=True):
        torch.testing.assert_close(tuple(own_), tuple(ours_))
    assert own.inputs == ours.inputs
    assert sum(len(labels) for _, labels in own.evaluation("test")) == 360


def test_two_sets_by_name_are_not_divided():
    own = OwnData(Drawn(24), architecture=Drawn(10), batch_size=5)
    assert own.sizes() == {"weights examples": 24, "architecture examples": 10}
    assert {part: len(own.stream(part, 0)) for part in ("weights", "architecture", "train")} == {
        "weights": 4,
        "architecture": 2,
        "train": 4,
    }
    assert own.holds_out
    assert not OwnData(Drawn()).holds_out
    assert not own.has_test
    with pytest.raises(SettingError, match="test: there is no such set"):
        own.test_dataloader()


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_batch_is_a_function_of_its_number(as_dict):
    own = OwnData(Drawn(as_dict=as_dict), batch_size=4)
    stream = own.stream("weights", 1)
    first = [stream.get(index) for index in range(5)]
    torch.manual_seed(5)
    random.seed(5)
    state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    again = [own.stream("weights", 1).get(index) for index in (4, 3, 2, 1, 0)][::-1]
    assert equal(first, again)
    assert torch.equal(state[0], torch.get_rng_state())
    assert (state[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert state[2] == random.getstate()
    assert not equal(first[0], own.stream("weights", 2).get(0))
    images = first[0]["image"] if as_dict else first[0][0]
    assert images[:, 0, 0, :3].unique().numel() == 12  # every generator, for every example


def test_workers_change_nothing():
    def epoch(workers):
        own = OwnData(Drawn(), batch_size=4, num_workers=workers)
        streams = {part: own.stream(part, 1) for part in ("weights", "architecture")}
        return list(Schedule(streams, 3, lambda: (1, 0), num_workers=workers)), list(own.evaluation("architecture"))

    assert equal(epoch(0), epoch(2))


def test_an_evaluation_is_the_same_in_every_pass():
    own = OwnData(Drawn(), batch_size=5)
    loader = own.evaluation("architecture")
    assert equal(list(loader), list(loader))
    assert [len(labels) for _, labels in loader] == [5, 5, 2]


def test_no_example_is_left_over_alone():
    assert [len(x) for x, _ in OwnData(Drawn(22), batch_size=5).evaluation("weights")] == [4, 4, 3]


def test_several_views():
    own = OwnData(Drawn(), batch_size=4)
    images, labels = own.stream("weights", 0, views=3).get(2)
    one, same = own.stream("weights", 0).get(2)
    assert images.shape == (4, 3, 1, 4, 4)
    assert torch.equal(images[:, 0], one)
    assert torch.equal(labels, same)
    assert not torch.equal(images[:, 1], one)
    assert torch.equal(own.stream("weights", 0, views=3, labelled=False).get(2), images)
    with pytest.raises(SettingError, match="all the same"):
        OwnData(digits()).stream("weights", 0, views=2)
    with pytest.raises(SettingError, match=r"train: .*got a dictionary of image, label"):
        OwnData(Drawn(as_dict=True), batch_size=4).stream("weights", 0, labelled=False).get(0)


def test_a_loader_stands_for_its_settings():
    def collate(examples):
        return torch.stack([x for x, _ in examples]).flatten(1), torch.tensor([y for _, y in examples])

    loader = DataLoader(Drawn(), batch_size=3, shuffle=True, collate_fn=collate, num_workers=2)
    own = OwnData(loader, test=DataLoader(Drawn(6), 2))
    assert (own.batch_size, own.num_workers) == (3, 2)
    assert own.stream("weights", 0).get(0)[0].shape == (3, 16)
    assert own.has_test
    assert len(own.test_dataloader()) == 3
    assert OwnData(loader, batch_size=4, num_workers=0).spec["init_args"]["batch_size"] == 4


def begin(worker):
    get_worker_info()  # is there
    Begun.worker = worker + 1


class Begun(Dataset):
    worker = 0

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.tensor(Begun.worker), index


def test_workers_begin_as_the_loader_says():
    own = OwnData(DataLoader(Begun(), 2, num_workers=2, worker_init_fn=begin))
    stream = own.stream("train", 0)
    batches = list(Schedule({"weights": stream}, 4, lambda: (0, 0), num_workers=2))
    assert [batch["weights"][0].tolist() for batch in batches] == [[1, 1], [2, 2], [1, 1], [2, 2]]
    assert Begun.worker == 0


@pytest.mark.parametrize(
    ("dataset", "classes"),
    [
        (TensorDataset(torch.zeros(6, 3, 8, 8), torch.tensor([0, 1, 6, 0, 1, 2])), 7),
        (Subset(Drawn(), [1, 2, 3]), 2),
        (ConcatDataset([Drawn(), Drawn()]), 2),
    ],
)
def test_inputs_are_told_from_an_example(dataset, classes):
    own = OwnData(dataset, batch_size=1)
    own.check_told(["channels", "image_size", "num_classes"])
    told = own.inputs
    images = dataset[0][0]
    assert told == {"channels": len(images), "image_size": images.shape[-1], "num_classes": classes}


class Nothing(Dataset):
    """Examples of which not everything is told."""

    def __init__(self, example):
        self.example = example

    def __len__(self):
        return 100

    def __getitem__(self, index):
        return self.example


@pytest.mark.parametrize(
    ("example", "name", "message"),
    [
        ((torch.zeros(2, 8, 8), 1), "num_classes", r"num_classes is not known, and Nothing has no classes"),
        ((torch.zeros(2, 8, 12), 1), "image_size", r"images of 8×12 have no one size"),
        ((torch.zeros(9), 1), "channels", r"cannot be told from \(a tensor \(1, 9\) of float32, a tensor"),
        (torch.zeros(5, dtype=torch.long), "vocabulary", r"cannot be told from a tensor \(1, 5\) of int64"),
        ({"pixels": torch.zeros(1, 8, 8)}, "channels", r"cannot be told from a dictionary of pixels"),
    ],
)
def test_what_is_not_told_is_asked_for(example, name, message):
    with pytest.raises(SettingError, match=r"^inputs: " + rf".*{message}") as error:
        OwnData(Nothing(example)).check_told([name])
    assert "hand them over" in str(error.value)
    given = {"channels": 1, "image_size": 8, "num_classes": 3}
    own = OwnData(Nothing(example), inputs=given)
    own.check_told(given)
    assert own.inputs == given


def test_examples_of_which_no_batch_can_be_made():
    with pytest.raises(SettingError, match=r"^train: of its first example no batch can be made \(TypeError"):
        OwnData(Nothing((object(), 1))).labelled  # noqa: B018


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: Endless(), "examples are taken by their numbers, got Endless"),
        (lambda: DataLoader(Endless(), 2), "examples are taken by their numbers, got Endless"),
        (lambda: iter([1]), "examples are taken by their numbers, got list_iterator"),
        (lambda: [DataLoader(Drawn(), 2), DataLoader(Drawn(), 2)], "one set or one loader, got list"),
        (lambda: DataLoader(Drawn(), batch_size=None), "a loader with batch_size=None"),
        (lambda: DataLoader(Drawn(), batch_sampler=[[0, 1]]), "a loader with batch_sampler"),
        (lambda: DataLoader(Drawn(), 2, sampler=WeightedRandomSampler([1.0] * 24, 24)), "WeightedRandomSampler"),
        (lambda: Subset(Drawn(), []), "at least one example, got an empty Subset"),
        (lambda: None, "there is no such set"),
        (lambda: "Drawn", "a checkpoint has just the name of your set, Drawn"),
    ],
)
def test_what_cannot_be_read_is_refused(given, message):
    with pytest.raises(SettingError, match=rf"^train: .*{message}") as error:
        OwnData(given()).stream("weights", 0)
    assert "hand" in str(error.value) or "at least" in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture_share": 1.0}, "architecture_share: between 0 and 1"),
        ({"architecture_share": 0.01, "batch_size": 4}, "architecture_share: 0.01 gives none of the 24 examples"),
        ({"batch_size": 13}, "batch_size: 13 is more than the 12 examples of the weights part"),
    ],
)
def test_what_leaves_nothing_to_train_is_refused(settings, message):
    def streams():
        own = OwnData(Drawn(), **settings)
        return own.stream("weights", 0), own.stream("architecture", 0)

    with pytest.raises(SettingError, match=message):
        streams()


def test_the_spec_is_plain_and_says_that_sets_have_to_be_handed_over():
    own = OwnData(DataLoader(Drawn(), 4), collate_fn=torch.utils.data.default_collate)
    args = own.spec["init_args"]
    assert (args["train"], args["architecture"], args["batch_size"]) == ("Drawn", None, 4)
    assert args["collate_fn"] == "default_collate"
    with pytest.raises(SettingError, match="just the name of your set, Drawn; hand the data themselves over"):
        DataModule.build(own.spec, "data")


class Module(pl.LightningDataModule):
    """A user's, whose batches are changed on their way to the device."""

    def __init__(self):
        super().__init__()
        self.n_setups = 0

    def setup(self, stage):
        self.n_setups += 1

    def train_dataloader(self):
        return DataLoader(Drawn(), 4, shuffle=True)

    def val_dataloader(self):
        return DataLoader(Drawn(8), 4)

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch[0] * 2, batch[1]

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] + 1000, batch[1]


def test_nothing_at_all():
    with pytest.raises(SettingError, match="train: there is no such set; hand over a Dataset or a DataLoader"):
        OwnData().check_told(["channels"])


def test_as_data():
    own = OwnData(Drawn())
    assert as_data(own) is own
    assert as_data((Drawn(), Drawn(8))).sizes() == {"weights examples": 24, "architecture examples": 8}
    module = Module()
    made = as_data(module)
    assert module.n_setups == 1
    assert made.sizes() == {"weights examples": 24, "architecture examples": 8}
    assert made.batch_size == 4
    for stream in (made.stream("weights", 0), made.stream("architecture", 0)):
        images, labels = stream.get(0)
        assert (images >= 1000).all()
        assert labels.shape == (4,)
    numbers = torch.cat([images[:, 0, 3, 3] for images, _ in made.evaluation("architecture")])
    assert numbers.tolist() == [1000 + 2 * n for n in range(8)]
    with pytest.raises(SettingError, match="has no train_dataloader"):
        as_data(pl.LightningDataModule())


def test_batches_to_train_any_module_on():
    batches = list(OwnData(Drawn(), batch_size=5).plain_batches())
    assert [images.shape for images, _ in batches] == [(5, 1, 4, 4)] * 2
    assert len(list(islice(OwnData(Drawn(), batch_size=5).train_dataloader(), 9))) == 2
