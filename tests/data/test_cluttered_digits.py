"""Digits among pieces of others: what is in an image, which digits each part is made from."""

import pytest
import torch
import torch.nn.functional as F

from lightning_nas.data import ClutteredDigits
from lightning_nas.data.digits import source_digits
from lightning_nas.errors import SettingError

PARTS = ("weights", "architecture", "test")


def examples(data, part):
    """Images ``(N, S, S)`` as bytes and labels ``(N,)`` of a part, in order."""
    images, labels = zip(*data.evaluation(part), strict=True)
    mean, std = data.mean[0], data.std[0]
    return ((torch.cat(images) * std + mean) * 255).round().byte()[:, 0], torch.cat(labels)


def windows(images, side):
    """Every square of ``side`` pixels in images ``(N, S, S)``: ``(N, places, side, side)``."""
    return F.unfold(images[:, None].float(), side).byte().mT.unflatten(2, (side, side))


def digits_shown(part, **settings):
    """The digit ``(8, 8)`` in each image of a part, read from images without pieces, where nothing hides it."""
    sources, classes = source_digits(test=part == "test")
    digits = {digit.numpy().tobytes(): label for digit, label in zip(sources, classes, strict=True)}
    images, labels = examples(ClutteredDigits(pieces=0, **settings), part)
    shown = []
    for squares, label, total in zip(windows(images, 8), labels, images.sum((1, 2)), strict=True):
        whole = squares[squares.sum((1, 2)) == total]  # several where the digit's border is empty
        found = [square for square in whole if digits.get(square.numpy().tobytes()) == label]
        assert len(found) == 1
        shown += found
    return torch.stack(shown)


@pytest.fixture(scope="module")
def shown():
    """The digit in each image of each part of 1,600 training images."""
    return {part: digits_shown(part, n_images=1600) for part in PARTS}


def distinct(images):
    return {image.numpy().tobytes() for image in images}


def test_sizes_and_types():
    data = ClutteredDigits(n_images=1000, image_size=18, architecture_share=0.3)
    assert data.inputs == {"channels": 1, "image_size": 18, "num_classes": 10}
    images, labels = data.load(test=False)
    assert images.shape == (1000, 1, 18, 18)
    assert labels.shape == (1000,)
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert {part: len(examples(data, part)[1]) for part in PARTS} == {"weights": 700, "architecture": 300, "test": 2000}
    batch, classes = data.stream("weights", seed=0).get(0)
    assert batch.shape == (64, 1, 18, 18)
    assert batch.dtype == torch.float32
    assert classes.shape == (64,)
    for part in PARTS:
        assert examples(data, part)[1].bincount(minlength=10).min() > 0.05 * len(examples(data, part)[1])


def test_no_digit_is_in_two_parts(shown):
    """Training has the 1,437 digits on which Digits trains, each in one part only; testing its 360 test digits."""
    parts = {part: distinct(digits) for part, digits in shown.items()}
    assert {part: len(digits) for part, digits in parts.items()} == {"weights": 719, "architecture": 718, "test": 360}
    assert parts["weights"] | parts["architecture"] == distinct(source_digits(False)[0])
    assert parts["test"] == distinct(source_digits(True)[0])
    assert not parts["weights"] & parts["architecture"]


@pytest.mark.parametrize("part", PARTS)
def test_an_image_is_its_digit_and_pieces_of_digits_of_the_same_part(shown, part):
    images, _ = examples(ClutteredDigits(n_images=1600, image_size=20, pieces=1), part)
    pieces = distinct(windows(shown[part], 4).flatten(0, 1))
    n_whole = 0
    for image, digit in zip(images[:300], shown[part], strict=False):
        squares = windows(image[None], 8)[0]
        assert (squares >= digit).all(2).all(1).any()  # the brighter pixel counts
        unchanged = (squares == digit).all(2).all(1).nonzero()
        if len(unchanged) != 1:
            continue
        top, left = divmod(unchanged.item(), image.shape[1] - 7)
        rest = image.clone()
        rest[top : top + 8, left : left + 8] = 0
        rows, columns = (rest.any(axis).nonzero().flatten() for axis in (1, 0))
        if len(rows) and rows[-1] - rows[0] == columns[-1] - columns[0] == 3:  # its borders are seen
            piece = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            if piece.sum() == rest.sum():  # no part of it is hidden
                assert piece.numpy().tobytes() in pieces
                n_whole += 1
    assert n_whole > 30


def test_digits_are_at_every_place():
    images, _ = examples(ClutteredDigits(n_images=1000, image_size=10, pieces=0), "weights")
    digits = digits_shown("weights", n_images=1000, image_size=10)
    same = (windows(images, 8) == digits[:, None]).all(3).all(2)
    places = same[same.sum(1) == 1].sum(0)
    assert len(places) == 9
    assert places.min() > 30


def test_more_pieces_make_brighter_images():
    light = [ClutteredDigits(pieces=pieces).mean[0] for pieces in (0, 1, 4)]
    assert light[0] < light[1] < light[2]


def test_the_same_settings_make_the_same_images():
    torch.manual_seed(0)
    first, labels = ClutteredDigits().load(test=False)
    torch.manual_seed(1)
    again, same = ClutteredDigits(batch_size=100).load(test=False)
    assert torch.equal(first, again)
    assert torch.equal(labels, same)
    other, others = ClutteredDigits(split_seed=1).load(test=False)
    assert (first != other).flatten(1).any(1).float().mean() > 0.99
    assert not torch.equal(labels, others)
    test = ClutteredDigits().load(test=True)
    changed = ClutteredDigits(split_seed=1, n_images=500, architecture_share=0.2).load(test=True)
    assert all(map(torch.equal, test, changed))


@pytest.mark.parametrize("settings", [{}, {"image_size": 24, "pieces": 0, "n_images": 500}])
def test_training_images_have_mean_0_and_deviation_1(settings):
    data = ClutteredDigits(**settings)
    pixels = torch.cat([images for images, _ in data.evaluation("train")])
    assert len(pixels) == data.n_images
    assert pixels.mean().item() == pytest.approx(0, abs=1e-4)
    assert pixels.std().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("setting", "value", "accepted"),
    [
        ("n_images", 99, "at least 100"),
        ("image_size", 7, "at least 8"),
        ("pieces", -1, "0 or more"),
        ("batch_size", 0, "at least 1"),
        ("architecture_share", 0.001, "between 0.01 and 0.99"),
        ("architecture_share", 1, "between 0 and 1"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(setting, value, accepted):
    with pytest.raises(SettingError, match=f"^{setting}: {accepted}, got {value}$"):
        ClutteredDigits(**{setting: value})
