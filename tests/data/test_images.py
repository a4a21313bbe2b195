"""Image sets, augmented streams, and the data module that all image data share."""

import pickle
import random
import warnings
from collections import Counter
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lightning_nas.data import DataModule, Digits, ImageData, Schedule, Scheduled
from lightning_nas.data.base import Shuffled
from lightning_nas.data.images import DrawnStream, ImageSet, cut_out, random_crop, random_flip
from lightning_nas.errors import SettingError
from lightning_nas.tasks import ContrastiveLearning

MEAN, STD = [0.5, 0.25], [0.25, 0.5]


def some_images(count, size=6):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 2, size, size), generator=generator, dtype=torch.uint8)


class Patterns(ImageData):
    """Twenty training images, labelled 0 to 19, and five test images, labelled 100 to 104."""

    mean, std = MEAN, STD

    def __init__(self, batch_size=4, num_workers=0, architecture_share=0.5, split_seed=0, cutout=0):
        super().__init__(batch_size, num_workers, architecture_share, split_seed, cutout)
        self.inputs = {"channels": 2, "image_size": 6, "num_classes": 105}

    def load(self, test):
        images = some_images(25)
        return (images[20:], torch.arange(100, 105)) if test else (images[:20], torch.arange(20))

    def transform(self, augment):
        return partial(random_crop, size=6, padding=2) if augment else None


def labels(batches):
    return [label for _, labels in batches for label in labels.tolist()]


def a_pass(stream):
    return [stream.get(index) for index in range(len(stream))]


# -- sets ------------------------------------------------------------------------------------------------------------


def test_a_batch_is_normalised_channel_by_channel():
    images = some_images(5)
    data = ImageSet(images, torch.arange(10, 15), MEAN, STD)
    assert len(data) == 5
    for positions in ([3, 0, 3], torch.tensor([3, 0, 3])):
        batch, labels = data.__getitems__(positions)
        assert batch.dtype == torch.float32
        assert labels.tolist() == [13, 10, 13]
        for k, position in enumerate([3, 0, 3]):
            for channel in range(2):
                for i, j in ((0, 0), (2, 5), (5, 5)):
                    expected = (images[position, channel, i, j].item() / 255 - MEAN[channel]) / STD[channel]
                    assert batch[k, channel, i, j].item() == pytest.approx(expected, abs=1e-6)


def test_the_transform_is_applied_to_the_bytes_of_a_batch_before_normalisation():
    seen = []

    def darken(images):
        seen.append((images.dtype, images.shape))
        return images // 2

    images = some_images(3)
    plain = ImageSet(images // 2, torch.arange(3), MEAN, STD).__getitems__([0, 2])[0]
    assert torch.equal(ImageSet(images, torch.arange(3), MEAN, STD, darken).__getitems__([0, 2])[0], plain)
    assert seen == [(torch.uint8, (2, 2, 6, 6))]


def test_a_set_can_be_some_of_the_images():
    images = some_images(8)
    some = ImageSet(images, torch.arange(8), MEAN, STD, positions=torch.tensor([6, 1, 3]))
    assert len(some) == 3
    batch, own = some.__getitems__([2, 0])
    assert own.tolist() == [3, 6]
    assert torch.equal(batch, ImageSet(images, torch.arange(8), MEAN, STD).__getitems__([3, 6])[0])
    assert torch.equal(images, some_images(8))  # bytes are not changed


def test_images_can_be_read_on_access_and_of_any_size():
    class Squares:
        """Image k has k + 1 rows and columns of value k."""

        def __getitem__(self, positions):
            return [torch.full((2, k + 1, k + 1), k, dtype=torch.uint8) for k in positions.tolist()]

    data = ImageSet(Squares(), torch.arange(9), MEAN, STD, lambda images: torch.stack([i[:, :1, :1] for i in images]))
    batch, own = data.__getitems__([7, 2, 5])
    assert batch.shape == (3, 2, 1, 1)
    assert (batch[:, 1, 0, 0] * STD[1] + MEAN[1]).mul(255).tolist() == pytest.approx([7, 2, 5], abs=1e-4)
    assert own.tolist() == [7, 2, 5]


# -- augmentation ----------------------------------------------------------------------------------------------------


def as_expected(counted, outcomes, count):
    """Whether every outcome is as frequent as the others, within four deviations."""
    share = 1 / len(outcomes)
    assert set(counted) == set(outcomes)
    assert all(abs(counted[one] - count * share) <= 4 * (count * share * (1 - share)) ** 0.5 for one in outcomes)


@pytest.mark.parametrize(
    ("height", "width", "size", "padding"), [(5, 5, 5, 2), (4, 4, 4, 0), (5, 7, 5, 1), (6, 3, 3, 1)]
)
def test_every_place_of_a_crop_is_as_likely(height, width, size, padding):
    """Compared with all windows of the image, padded by a loop."""
    image = torch.arange(1, 1 + 2 * height * width, dtype=torch.uint8).view(2, height, width)
    places = {}
    for top in range(-padding, height + padding - size + 1):
        for left in range(-padding, width + padding - size + 1):
            window = torch.zeros(2, size, size, dtype=torch.uint8)
            for i in range(size):
                for j in range(size):
                    if 0 <= top + i < height and 0 <= left + j < width:
                        window[:, i, j] = image[:, top + i, left + j]
            places[window.numpy().tobytes()] = (top, left)
    torch.manual_seed(0)
    crops = random_crop(image.expand(3000, -1, -1, -1), size, padding)
    assert (crops.shape, crops.dtype) == ((3000, 2, size, size), torch.uint8)
    as_expected(Counter(places[crop.numpy().tobytes()] for crop in crops), places.values(), 3000)


def test_images_of_different_sizes_are_cropped_to_one():
    images = [torch.full((1, height, width), height, dtype=torch.uint8) for height, width in ((4, 9), (7, 4), (4, 4))]
    crops = random_crop(images, 4, 0)
    assert crops.shape == (3, 1, 4, 4)
    assert [crop.unique().tolist() for crop in crops] == [[4], [7], [4]]


def test_half_of_the_images_are_mirrored():
    images = some_images(1).expand(2000, -1, -1, -1)
    plain, mirrored = images[0], images[0].flip(-1)
    torch.manual_seed(0)
    flipped = random_flip(images)
    as_expected(Counter(torch.equal(image, mirrored) for image in flipped), (True, False), 2000)
    assert all(torch.equal(image, plain) or torch.equal(image, mirrored) for image in flipped)


@pytest.mark.parametrize(("side", "height", "width"), [(1, 3, 4), (2, 5, 5), (3, 5, 4), (4, 6, 7), (6, 6, 6)])
def test_the_centre_of_a_cut_out_square_is_any_pixel_and_what_is_beyond_the_border_is_cut_off(side, height, width):
    centres = {}
    for row in range(height):
        for column in range(width):
            kept = torch.ones(height, width)
            for i in range(row - side // 2, row - side // 2 + side):
                for j in range(column - side // 2, column - side // 2 + side):
                    if 0 <= i < height and 0 <= j < width:
                        kept[i, j] = 0
            centres[kept.numpy().tobytes()] = (row, column)
    assert len(centres) == height * width  # a centre can be told from what is left
    torch.manual_seed(0)
    values = torch.rand(4000, 2, height, width) + 1
    cut = cut_out(values.clone(), side)
    kept = (cut != 0).float()
    assert torch.equal(cut, values * kept)
    assert torch.equal(kept[:, 0], kept[:, 1])
    as_expected(Counter(centres[one.numpy().tobytes()] for one in kept[:, 0]), centres.values(), 4000)


# -- streams ---------------------------------------------------------------------------------------------------------


def alike(seed=0, rank=0, world_size=1):
    """A stream of which all images are the same, so that batches differ by augmentation alone."""
    images = some_images(1, size=8).expand(32, -1, -1, -1)
    data = ImageSet(images, torch.arange(32), MEAN, STD, partial(random_crop, size=8, padding=4))
    return DrawnStream(data, Shuffled(32, 4, seed, rank, world_size))


def test_without_augmentation_a_stream_is_the_set_in_the_order_of_its_numbers():
    images = some_images(10)
    order = Shuffled(10, 3, seed=5)
    stream = DrawnStream(ImageSet(images, torch.arange(10), MEAN, STD), order)
    assert len(stream) == 3
    mean, std = torch.tensor(MEAN).view(2, 1, 1), torch.tensor(STD).view(2, 1, 1)
    for index in (0, 1, 2, 3, 17):
        batch, labels = stream.get(index)
        assert labels.tolist() == order.get(index).tolist()
        for image, position in zip(batch, order.get(index), strict=True):
            assert torch.equal(image, (images[position].float() / 255 - mean) / std)


def test_augmentation_depends_on_the_seed_and_the_batch_number_alone():
    first = [alike().get(index)[0] for index in range(20)]
    torch.manual_seed(99)
    stream = alike()
    for index in (19, 3, 8, 8, 0):
        torch.rand(index)
        assert torch.equal(stream.get(index)[0], first[index])


def test_augmentation_differs_between_images_batches_passes_ranks_and_seeds():
    batch = alike().get(0)[0]
    assert any(not torch.equal(batch[0], image) for image in batch[1:])
    others = [
        alike().get(1),  # of the same pass
        alike().get(8),  # the first of the next pass
        alike(seed=1).get(0),
        alike(rank=0, world_size=2).get(1),
        alike(rank=1, world_size=2).get(0),
    ]
    for k, (other, _) in enumerate(others):
        assert not torch.equal(batch, other), k
    assert torch.equal(alike(rank=0, world_size=2).get(0)[0], batch)


def test_a_stream_leaves_the_global_random_numbers_alone():
    stream = alike()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002  # the global state is what is tested
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    for index in range(5):
        stream.get(index)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


# -- the data module -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "n_architecture"), [(0.5, 10), (0.25, 5), (0.1, 2), (0.97, 19)])
def test_the_training_images_are_divided_by_the_share(share, n_architecture):
    data = Patterns(batch_size=1, architecture_share=share)
    weights, architecture, train, test = (
        labels(data.evaluation(part)) for part in ("weights", "architecture", "train", "test")
    )
    assert (len(weights), len(architecture)) == (20 - n_architecture, n_architecture)
    assert sorted(weights + architecture) == train == list(range(20))
    assert test == [100, 101, 102, 103, 104]


def test_the_division_depends_on_split_seed_alone():
    def division(**settings):
        return labels(Patterns(**settings).evaluation("weights"))

    torch.manual_seed(0)
    first = division()
    torch.manual_seed(1)
    assert division(batch_size=3, num_workers=0) == first
    assert len({tuple(sorted(division(split_seed=seed))) for seed in range(5)}) == 5
    assert sorted(first) != list(range(10, 20))


def test_a_stream_has_the_part_augmented_and_an_evaluation_has_it_as_it_is():
    data = Patterns(batch_size=5)
    plain = {
        label: image
        for images, labels in data.evaluation("train")
        for image, label in zip(images, labels.tolist(), strict=True)
    }
    shifted = 0
    for part in ("weights", "architecture", "train"):
        batches = a_pass(data.stream(part, seed=0))
        assert sorted(labels(batches)) == sorted(labels(data.evaluation(part)))
        for images, own in batches:
            for image, label in zip(images, own.tolist(), strict=True):
                shifted += not torch.equal(image, plain[label])
    assert shifted > 30  # of 40; a shift by nothing is one of 25


def test_cutout_sets_normalised_training_images_to_zero_and_changes_nothing_else():
    plain, cut = Patterns(batch_size=10), Patterns(batch_size=10, cutout=3)
    for part in ("weights", "architecture", "train"):
        shapes = set()
        for index in range(6):
            (before, own), (after, same) = (data.stream(part, 0).get(index) for data in (plain, cut))
            assert own.tolist() == same.tolist()
            kept = after != 0
            assert torch.equal(after, before * kept)
            for mask in ~kept.all(1):
                rows, columns = mask.any(1).sum().item(), mask.any(0).sum().item()
                assert mask.sum() == rows * columns  # one rectangle
                shapes.add((rows, columns))
        assert shapes == {(3, 3), (2, 3), (3, 2), (2, 2)}  # the small ones at the borders
    for part in ("weights", "architecture", "train", "test"):
        for one, other in zip(plain.evaluation(part), cut.evaluation(part), strict=True):
            assert torch.equal(one[0], other[0])


def test_the_embedded_digits_can_be_cut_too():
    (before, _), (after, _) = (Digits(image_size=16, cutout=side).stream("weights", 0).get(0) for side in (0, 4))
    kept = after != 0
    assert torch.equal(after, before * kept)
    areas = set((~kept).sum((1, 2, 3)).tolist())
    assert {8, 12, 16} <= areas <= {4, 6, 8, 9, 12, 16}  # 2, 3 or 4 rows and columns


def test_streams_can_be_sent_to_another_process():
    stream = Patterns(cutout=2).stream("weights", 0)
    assert torch.equal(pickle.loads(pickle.dumps(stream)).get(3)[0], stream.get(3)[0])


def test_parts_can_be_divided_otherwise():
    class Chosen(Patterns):
        """Four images for the weights, three for the architecture, the others for nothing."""

        def division(self, count):
            assert count == 20
            return torch.tensor([8, 2, 4, 6]), torch.tensor([5, 1, 3])

    data = Chosen()
    parts = {part: labels(data.evaluation(part)) for part in ("weights", "architecture", "train")}
    assert parts == {"weights": [8, 2, 4, 6], "architecture": [5, 1, 3], "train": [1, 2, 3, 4, 5, 6, 8]}
    assert sorted(labels(a_pass(data.stream("weights", 0)))) == [2, 4, 6, 8]


def test_a_part_is_read_once():
    class Counted(Patterns):
        """Counts how often its images are read."""

        reads = 0

        def load(self, test):
            self.reads += 1
            return super().load(test)

    data = Counted()
    for _ in range(3):
        next(iter(data.evaluation("test")))
        data.stream("weights", 0).get(0)
    assert data.reads == 2


def test_streams_of_other_parts_and_seeds_are_shuffled_otherwise():
    data = Patterns(batch_size=10)
    orders = [labels(a_pass(data.stream("weights", seed))) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    position = {label: k for k, label in enumerate(labels(data.evaluation("weights")))}
    other = {label: k for k, label in enumerate(labels(data.evaluation("architecture")))}
    architecture = labels(a_pass(data.stream("architecture", 0)))
    assert [position[label] for label in orders[0]] != [other[label] for label in architecture]


def test_the_ranks_of_a_trainer_share_a_stream():
    def taken(rank):
        data = Patterns(batch_size=2)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        return [labels([batch]) for batch in a_pass(data.stream("weights", seed=0))]

    first, second = taken(0), taken(1)
    alone = a_pass(Patterns(batch_size=4).stream("weights", seed=0))
    assert [one + other for one, other in zip(first, second, strict=True)] == [labels([batch]) for batch in alone]


@pytest.mark.parametrize("batch_size", [1, 3, 5, 64])
def test_an_evaluation_has_each_example_once_and_in_order(batch_size):
    for part in ("weights", "architecture", "test"):
        batches = list(Patterns(batch_size=batch_size).evaluation(part))
        together = next(iter(Patterns(batch_size=64).evaluation(part)))
        assert torch.equal(torch.cat([images for images, _ in batches]), together[0])
        assert torch.equal(torch.cat([labels for _, labels in batches]), together[1])
        assert {len(labels) for _, labels in batches[:-1]} <= {batch_size, batch_size - 1}


def test_an_evaluation_of_some_batches_is_spread_over_the_part():
    data = Patterns(batch_size=4)
    assert [own.tolist() for _, own in data.evaluation("train", 2)] == [[0, 2, 5, 7], [10, 12, 15, 17]]
    assert labels(data.evaluation("train", 9)) == labels(data.evaluation("train")) == list(range(20))


def test_a_part_that_does_not_exist_is_refused():
    for call in (Patterns().evaluation, lambda part: Patterns().stream(part, 0)):
        with pytest.raises(ValueError, match="'validation'; there are weights, architecture, train, test"):
            call("validation")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("batch_size", 0),
        ("batch_size", -3),
        ("num_workers", -1),
        ("architecture_share", 0.0),
        ("architecture_share", 1.0),
        ("architecture_share", float("nan")),
        ("cutout", -1),
    ],
)
def test_a_wrong_setting_is_refused_by_name(setting, value):
    with pytest.raises(SettingError, match=rf"^{setting}: .* got {value}"):
        Patterns(**{setting: value})


TOO_LARGE = [
    (
        11,
        0.5,
        1,
        "weights",
        "11 is .* the 10 images of the weights part, .* at most 10, or lower architecture_share, now 0.5",
    ),
    (3, 0.1, 1, "architecture", "3 is .* the 2 images of the arch.* at most 2, or raise architecture_share, now 0.1"),
    (
        6,
        0.5,
        2,
        "weights",
        "6 on each of 2 devices is .* the 10 images .* at most 5, or lower architecture_share, now 0.5",
    ),
    (
        1,
        0.1,
        3,
        "architecture",
        "1 on each of 3 devices is .* the 2 images .*; use fewer devices, or raise architecture_share, now 0.1",
    ),
    (21, 0.5, 1, "train", "21 is .* the 20 images of the train part, .* at most 20"),
]


@pytest.mark.parametrize(("batch_size", "share", "devices", "part", "message"), TOO_LARGE)
def test_a_batch_larger_than_the_part_is_refused_with_both_remedies(batch_size, share, devices, part, message):
    data = Patterns(batch_size=batch_size, architecture_share=share)
    data.trainer = SimpleNamespace(global_rank=0, world_size=devices)
    with pytest.raises(SettingError, match=f"^batch_size: {message}$"):
        data.stream(part, 0)
    if part == "weights":
        with pytest.raises(SettingError, match=f"^batch_size: {message}"):
            data.plain_batches()
    assert len(list(data.evaluation(part))) >= 1


@pytest.mark.parametrize(
    ("share", "sizes", "remedy"),
    [
        (0.01, "20 of the 20 training images to the weights part and 0 to", "raise architecture_share, now 0.01"),
        (0.99, "0 of the 20 training images to the weights part and 20 to", "lower architecture_share, now 0.99"),
    ],
)
def test_a_share_with_which_a_part_is_empty_is_refused_by_name(share, sizes, remedy):
    data = Patterns(batch_size=1, architecture_share=share)
    message = f"^architecture_share: {share} gives {sizes} the architecture part, and each needs one; {remedy}$"
    for part in ("weights", "architecture"):
        for call in (data.evaluation, partial(data.stream, seed=0)):
            with pytest.raises(SettingError, match=message):
                call(part)
    assert len(data.stream("train", 0)) == 20  # which is not divided


@pytest.mark.parametrize(
    ("own", "lacking"),
    [
        ([0, 0, 1, 1], None),
        ([0, 1, 0, 2], "1, 2"),
        ([label * (k % 2) for k, label in enumerate(range(24))], "1, 3, 5, 7, 9, 11, 13, 15, 17, 19 and more"),
    ],
)
def test_classes_that_a_part_lacks_are_named(own, lacking):
    class Labelled(Patterns):
        """Every other image is for the weights."""

        def load(self, test):
            return some_images(len(own)), torch.tensor(own)

        def division(self, count):
            return torch.arange(0, count, 2), torch.arange(1, count, 2)

    data = Labelled(batch_size=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.stream("weights", 0)
        data.stream("train", 0)
    message = f"the weights part, {len(own) // 2} images, has none of these classes of the training images: {lacking}"
    assert [str(warning.message) for warning in caught] == (
        [f"{message}. To have some, lower architecture_share, now 0.5"] if lacking else []
    )


def test_a_cut_out_larger_than_the_images_is_refused_by_name():
    with pytest.raises(SettingError, match=r"^cutout: at most 6, the size of the images, got 7$"):
        Patterns(cutout=7).stream("weights", 0)
    assert len(Patterns(cutout=6).stream("weights", 0)) == 2
    assert len(labels(Patterns(cutout=7).evaluation("test"))) == 5


def test_the_spec_rebuilds_the_module():
    data = Patterns(batch_size=3, split_seed=4)
    rebuilt = DataModule.build(data.spec)
    assert dict(rebuilt.hparams) == dict(data.hparams) == data.spec["init_args"]
    assert labels(rebuilt.evaluation("weights")) == labels(data.evaluation("weights"))


def attach(data, module):
    data.trainer = SimpleNamespace(lightning_module=module, global_rank=0, world_size=1)
    return data


def test_the_modules_schedule_says_what_is_trained_on():
    class Module(Scheduled):
        def schedule(self, data):
            return Schedule({"weights": data.stream("weights", 0)}, 2, lambda: (0, 1))

    data = attach(Patterns(), Module())
    ((batch,),) = [batch.values() for batch in data.train_dataloader()]
    assert labels([batch]) == labels([data.stream("weights", 0).get(1)])
    assert labels(data.val_dataloader()) == labels(data.evaluation("architecture"))
    assert labels(data.test_dataloader()) == labels(data.evaluation("test"))


def test_a_module_without_a_schedule_gets_full_shuffled_batches_of_the_weights_part():
    data = attach(Patterns(batch_size=4), object())
    torch.manual_seed(0)
    passes = [[labels([batch]) for batch in data.train_dataloader()] for _ in range(2)]
    for batches in passes:
        assert [len(batch) for batch in batches] == [4, 4]  # the two left over are left out
        seen = [label for batch in batches for label in batch]
        assert len(set(seen)) == 8
        assert set(seen) <= set(labels(data.evaluation("weights")))
    assert passes[0] != passes[1]


@pytest.mark.parametrize(("part", "expected"), [("weights", "weights"), ("test", "test"), (None, None)])
def test_a_module_says_what_it_is_validated_on(part, expected):
    data = attach(Patterns(), SimpleNamespace(validation_part=part))
    assert labels(data.val_dataloader()) == ([] if expected is None else labels(data.evaluation(expected)))


@pytest.mark.parametrize(
    ("count", "size", "expected"), [(9, 4, [3, 3, 3]), (8, 4, [4, 4]), (7, 3, [3, 3, 1]), (5, 1, [1] * 5)]
)
def test_no_image_is_left_over_alone_where_it_can_be_helped(count, size, expected):
    """In a network that normalises by the batch, one image alone has no statistics."""
    data = Digits(batch_size=size, architecture_share=count / 1437)
    assert [len(labels) for _, labels in data.evaluation("architecture")] == expected


# -- views, and batches without labels ---------------------------------------------------------------------------------


def test_the_first_of_several_views_is_the_only_one_of_one_view_and_the_others_are_new():
    data = Patterns(cutout=2)
    for index in (0, 3, 7):  # in the second pass too
        own, labels = data.stream("weights", 5).get(index)
        images, same = data.stream("weights", 5, views=3).get(index)
        assert images.shape == (4, 3, 2, 6, 6)
        assert torch.equal(same, labels)
        assert torch.equal(images[:, 0], own)
        assert not any(torch.equal(images[:, k], images[:, j]) for k, j in ((0, 1), (0, 2), (1, 2)))


def test_every_view_is_augmented_from_the_same_image():
    class Shown(Patterns):
        def transform(self, augment):  # one brightness for each image, one level more or not at random
            return lambda images: images[:, :, :1, :1] // 2 + torch.randint(2, (len(images), 1, 1, 1)).byte()

    data = Shown()
    images, labels = data.stream("weights", 0, views=8).get(0)
    levels = (images * data._set("weights", True).std[None] + data._set("weights", True).mean[None]) * 255
    levels = levels.flatten(2)[:, :, 0].round()
    base = (some_images(25)[labels][:, 0, 0, 0] // 2).float()
    assert set((levels - base[:, None]).flatten().tolist()) == {0.0, 1.0}
    assert all(len(set(row.tolist())) == 2 for row in levels)  # in eight views both


def test_batches_of_views_are_a_function_of_their_number_with_workers_too():
    def batches(num_workers):
        streams = {"weights": Patterns().stream("weights", 1, views=2, labelled=False)}
        return [batch["weights"] for batch in Schedule(streams, 5, lambda: (0, 1), num_workers=num_workers)]

    alone, in_processes = batches(0), batches(2)
    assert len(alone) == 4
    assert all(torch.equal(one, other) for one, other in zip(alone, in_processes, strict=True))
    assert torch.equal(alone[1], Patterns().stream("weights", 1, views=2).get(2)[0])


@pytest.mark.parametrize("views", [1, 2])
def test_a_batch_without_labels_is_the_images_alone(views):
    data = Patterns()
    for with_labels, without in (
        (data.stream("train", 0, views), data.stream("train", 0, views, labelled=False)),
        (list(data.evaluation("test", None, views)), list(data.evaluation("test", None, views, labelled=False))),
    ):
        batches, alone = (
            batches if isinstance(batches, list) else a_pass(batches) for batches in (with_labels, without)
        )
        assert len(batches) == len(alone) > 1
        assert all(torch.equal(images, only) for (images, _), only in zip(batches, alone, strict=True))


def test_an_evaluation_of_views_is_the_same_in_every_pass_whatever_prepares_it():
    plain = Patterns(batch_size=5)
    passes = [list(data.evaluation("weights", views=2)) for data in (plain, plain, Patterns(5, num_workers=2))]
    assert labels(passes[0]) == labels(plain.evaluation("weights"))
    for again in passes[1:]:
        assert all(torch.equal(one, other) for (one, _), (other, _) in zip(passes[0], again, strict=True))
    first, second = passes[0][0][0].unbind(1)
    assert not torch.equal(first, second)


def test_views_that_would_all_be_the_same_are_refused():
    class Plain(Patterns):
        def transform(self, augment):
            return None

    for read in (Plain().stream, lambda *args, **views: Plain().evaluation("weights", **views)):
        with pytest.raises(SettingError, match=r"^data: Plain would give 2 views of an image that are all the same"):
            read("weights", 0, views=2)
    first, second = Plain(cutout=2).stream("weights", 0, views=2).get(0)[0].unbind(1)
    assert not torch.equal(first, second)


def test_a_task_is_given_what_it_reads():
    class Module(Scheduled):
        reads = ContrastiveLearning().reads

        def schedule(self, data):
            raise NotImplementedError

    data = attach(Patterns(), Module())
    for loader in (data.val_dataloader(), data.test_dataloader()):
        for batch in loader:
            assert batch.shape[1:] == (2, 2, 6, 6)
