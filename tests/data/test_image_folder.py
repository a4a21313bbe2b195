"""A user's folder of images: its layout, what is read from the files, and what becomes of each image."""

import json
import os
import pickle
import warnings
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_nas.data import DataModule, ImageFolder, Schedule, image_folder
from lightning_nas.data.image_folder import decode
from lightning_nas.errors import SettingError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where scans are kept."""
    place = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    return place / "lightning_nas"


@pytest.fixture
def opened(monkeypatch):
    """The files that are opened as images."""
    paths = []
    opening = Image.open

    def counted(path, *args, **kwargs):
        paths.append(Path(path))
        return opening(path, *args, **kwargs)

    monkeypatch.setattr(Image, "open", counted)
    return paths


def noise(seed, height=6, width=6, channels=3):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(folder, files):
    """Files by path; an array is an image."""
    for path, content in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            place.write_bytes(content)
        else:
            (Image.fromarray(content) if isinstance(content, np.ndarray) else content).save(place)


def pets(folder, splits=("train", "test"), count=5, **kind):
    """``count`` images of cats and of dogs in each split, as arrays by path."""
    images = {}
    for split in splits:
        for name in ("dog", "cat"):
            for k in range(count):
                path = f"{split}/{name}/{k}.png"
                images[path] = noise(int.from_bytes(path.encode(), "big"), **kind)
    write(folder, images)
    return images


def module(folder, **settings):
    return ImageFolder(str(folder), **({"batch_size": 4, "num_workers": 0} | settings))


def bytes_of(data, images):
    """What was normalised."""
    mean, std = torch.tensor(data.mean).view(1, -1, 1, 1), torch.tensor(data.std).view(1, -1, 1, 1)
    return ((images * std + mean) * 255).round().to(torch.uint8)


def examples(data, part):
    """Image ``(H, W, C)`` and label of every example in order."""
    found = []
    for images, labels in data.evaluation(part):
        found += [(i.permute(1, 2, 0).numpy(), k) for i, k in zip(bytes_of(data, images), labels.tolist(), strict=True)]
    return found


def same(examples, expected):
    assert len(examples) == len(expected)
    for (image, label), (other, same_label) in zip(examples, expected, strict=True):
        assert label == same_label
        assert np.array_equal(image, other)


def of(images, split):
    """What is expected of a split: cats (label 0) in order, then dogs (1)."""
    paths = sorted(path for path in images if path.startswith(split))
    return [(images[path], int("dog" in path)) for path in paths]


# -- layouts ---------------------------------------------------------------------------------------------------------


def test_without_val_the_training_images_are_divided_by_the_share(tmp_path):
    images = pets(tmp_path)
    data = module(tmp_path, architecture_share=0.3)
    data.prepare_data()
    assert data.classes == ["cat", "dog"]
    same(examples(data, "train"), of(images, "train"))
    same(examples(data, "test"), of(images, "test"))
    parts = {part: [(i.tobytes(), k) for i, k in examples(data, part)] for part in ("weights", "architecture", "train")}
    assert (len(parts["weights"]), len(parts["architecture"])) == (7, 3)
    assert sorted(parts["weights"] + parts["architecture"]) == sorted(parts["train"])
    other = module(tmp_path, architecture_share=0.3, split_seed=1)
    assert [(i.tobytes(), k) for i, k in examples(other, "weights")] != parts["weights"]


def test_with_val_it_is_the_architecture_part(tmp_path):
    images = pets(tmp_path, ("train", "val", "test"), count=3)
    data = module(tmp_path)
    same(examples(data, "weights"), of(images, "train"))
    same(examples(data, "architecture"), of(images, "val"))
    same(examples(data, "train"), of(images, "train") + of(images, "val"))
    same(examples(data, "test"), of(images, "test"))


def test_without_test_everything_but_testing_works(tmp_path):
    pets(tmp_path, ("train", "val"))
    data = module(tmp_path)
    data.prepare_data()
    assert data.stream("train", 0).get(0)[0].shape == (4, 3, 6, 6)
    assert len(examples(data, "architecture")) == 10
    with pytest.raises(SettingError, match=rf"^folder: there is nothing to test on, {tmp_path} has no folder test/"):
        data.evaluation("test")


def test_which_files_and_folders_count(tmp_path):
    images = {f"train/a/{k}.{ending}": noise(k) for k, ending in enumerate(("png", "PNG", "bmp", "tif", "tiff", "gif"))}
    images |= {"train/a/deep/er/7.webp": noise(7), "train/a/8.jpg": noise(8), "train/b/9.JPEG": noise(9)}
    write(tmp_path, images)
    write(
        tmp_path,
        {"train/a/notes.txt": b"no image", "train/.ipynb_checkpoints/1.png": noise(1), "train/1.png": noise(1)}
        | {"train/b/.ipynb_checkpoints/9.png": noise(9)},
    )
    (tmp_path / "train" / "a" / "0.csv").touch()
    (tmp_path / "train" / "a" / ".DS_Store").touch()
    data = module(tmp_path)
    with pytest.warns(UserWarning, match="left out") as caught:
        data.prepare_data()
    assert [str(warning.message).partition(". What")[0] for warning in caught] == [
        f"1 files in {tmp_path} are in no class's folder and are left out: train/1.png",
        f"2 files in {tmp_path} end unlike images and are left out: train/a/0.csv, train/a/notes.txt",
    ]
    assert data.classes == ["a", "b"]
    assert [label for _, label in examples(data, "train")] == [0] * 8 + [1]


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_train_lacks_is_named(tmp_path, split):
    pets(tmp_path, ("train", "val", "test"), count=1)
    write(tmp_path, {f"{split}/fish/1.png": noise(1)})
    with pytest.raises(SettingError, match=rf"^folder: {tmp_path}/{split} has a class 'fish', and train/ has not$"):
        module(tmp_path).prepare_data()


def test_val_and_test_may_lack_a_class(tmp_path):
    pets(tmp_path, count=2)
    write(tmp_path, {"val/dog/1.png": noise(1)})
    data = module(tmp_path)
    assert [label for _, label in examples(data, "architecture")] == [1]
    assert data.inputs["num_classes"] == 2


WRONG = {
    "no folder": ({}, "there is no folder {}/train"),
    "classes without train": ({"cat/1.png": noise(1)}, "there is no folder {}/train"),
    "no classes": ({"train/1.png": noise(1)}, "there are no classes in {}/train"),
    "hidden classes": ({"train/.cat/1.png": noise(1)}, "there are no classes in {}/train"),
    "an empty class": ({"train/cat/1.png": noise(1), "train/dog/1.txt": b""}, "there are no images in {}/train/dog"),
    "one class": ({"train/cat/1.png": noise(1)}, "there is one class only in {}/train, 'cat', and telling"),
    "one class that is seen": (
        {"train/cat/1.png": noise(1), "train/.dog/1.png": noise(2)},
        "there is one class only in {}/train, 'cat', and telling",
    ),
    "nothing to read": (
        {"train/cat/1.png": b"no", "train/dog/1.png": b"no"},
        "there are no images that can be read in {}; train/cat/1.png: cannot",
    ),
    "nothing to train on": (
        {"train/cat/1.png": b"no", "train/dog/1.png": b"no", "val/cat/1.png": noise(1)},
        "there are no images that can be read in {}/train",
    ),
    "a class that cannot be read": (
        {"train/cat/1.png": noise(1), "train/dog/1.png": b"no"},
        "there are no images that can be read in {}/train/dog",
    ),
    "an empty val": (
        {"train/cat/1.png": noise(1), "train/dog/1.png": noise(2), "val/cat/1.txt": b""},
        "there are no images that can be read in {}/val",
    ),
    "an empty valid": (
        {"train/cat/1.png": noise(1), "train/dog/1.png": noise(2), "valid/cat/1.txt": b""},
        "there are no images that can be read in {}/valid",
    ),
}


@pytest.mark.filterwarnings("ignore:.*cannot be decoded", "ignore:.*left out")
@pytest.mark.parametrize(("files", "message"), WRONG.values(), ids=WRONG)
def test_a_folder_of_another_layout_is_refused_with_the_layout_that_is_expected(tmp_path, files, message):
    folder = tmp_path / "images"
    write(folder, files)
    with pytest.raises(SettingError) as caught:
        module(folder).prepare_data()
    assert str(caught.value).startswith(f"folder: {message.format(folder)}")
    assert "Expected are train/CLASS/, and if there are such val/CLASS/ and test/CLASS/, with .jpg" in str(caught.value)


@pytest.mark.parametrize("called", ["val", "valid", "validation"])
def test_the_folder_to_validate_on_has_one_of_three_names(tmp_path, called):
    images = pets(tmp_path, ("train", called), count=3)
    data = module(tmp_path)
    same(examples(data, "weights"), of(images, "train"))
    same(examples(data, "architecture"), of(images, called))


UNREAD = {
    "two to validate on": (
        ("train", "val", "valid"),
        "{} has val/ and valid/, .* to use val/ remove or rename valid/$",
    ),
    "three": (("train", "validation", "valid", "val"), ".* to use val/ remove or rename valid/ and validation/$"),
    "Train": (
        ("Train",),
        "{} has no folder train/, and Train/ is not read; rename it to train/, or move it elsewhere$",
    ),
    "training": (("training", "val"), "{} has no folder train/, and training/ is not read"),
    "VAL": (("train", "VAL"), "{} has no folder val/, and VAL/ is not read; rename it to val/"),
    "dev": (("train", "dev", "test"), "{} has no folder val/, and dev/ is not read; rename it to val/"),
    "eval, Valid": (("train", "eval", "Valid"), "{} has no folder val/, and Valid/, eval/ is not read"),
    "testing": (("train", "testing"), "{} has no folder test/, and testing/ is not read; rename it to test/"),
}


@pytest.mark.parametrize(("splits", "message"), UNREAD.values(), ids=UNREAD)
def test_a_folder_that_could_be_the_missing_one_is_never_passed_over(tmp_path, splits, message):
    pets(tmp_path / "images", splits, count=1)
    with pytest.raises(SettingError, match=f"^folder: {message.format(tmp_path / 'images')}"):
        module(tmp_path / "images").prepare_data()


@pytest.mark.parametrize(("other", "read"), [("dev", "valid"), ("Train", "train"), ("testing", "test")])
def test_a_folder_that_looks_like_one_that_is_there_is_named_in_a_warning(tmp_path, other, read):
    pets(tmp_path, ("train", "valid", "test", other, "notes"), count=2)
    data = module(tmp_path)
    with pytest.warns(UserWarning, match=rf"^{other}/ in {tmp_path} is not read, but {read}/$") as caught:
        data.prepare_data()
    assert len(caught) == 1
    assert len(examples(data, "train")) == 8


def test_whether_there_is_a_test_part_is_known_at_a_glance(tmp_path, opened):
    pets(tmp_path)
    assert module(tmp_path).has_test
    assert not module(tmp_path / "train").has_test
    assert not opened


GIVEN = [
    ({}, None),
    ({"architecture_share": 0.1}, "architecture_share 0.1"),
    ({"split_seed": 3}, "split_seed 3"),
    ({"architecture_share": 0.1, "split_seed": 3}, "architecture_share 0.1 and split_seed 3"),
]


@pytest.mark.parametrize(("settings", "named"), GIVEN)
@pytest.mark.parametrize("splits", [("train",), ("train", "valid")])
def test_a_division_that_is_asked_for_beside_images_to_validate_on_is_said_to_change_nothing(
    tmp_path, settings, named, splits
):
    pets(tmp_path, splits)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module(tmp_path, **settings).evaluation("weights")
    message = f"{named} changes nothing here: {tmp_path}/valid is what architectures are judged on"
    expected = [message] if named and len(splits) == 2 else []
    assert [str(warning.message) for warning in caught if "nothing here" in str(warning.message)] == expected


@pytest.mark.parametrize(
    ("splits", "settings", "message"),
    [
        (
            ("train",),
            {},
            r"the 2 images of the architecture part, .* at most 2, or raise architecture_share, now 0\.5, or ",
        ),
        (("train", "val"), {"batch_size": 5}, "the 4 images of the weights part, .* or move images to {}/train$"),
    ],
)
def test_a_batch_larger_than_a_part_is_refused_with_both_remedies(tmp_path, splits, settings, message):
    pets(tmp_path, splits, count=2)
    part = "weights" if "weights" in message else "architecture"
    with pytest.raises(SettingError, match=f"^batch_size: .* is more than {message.format(tmp_path)}"):
        module(tmp_path, **{"batch_size": 3} | settings).stream(part, 0)


def test_a_class_without_images_to_validate_on_is_named(tmp_path):
    pets(tmp_path, count=2)
    write(tmp_path, {"valid/dog/1.png": noise(1)})
    message = rf"^the architecture part, 1 images, has none of .*: cat\. To have some, move images to {tmp_path}/valid$"
    with pytest.warns(UserWarning, match=message):
        module(tmp_path).evaluation("architecture")


def test_an_empty_test_folder_is_refused_by_testing_alone(tmp_path):
    pets(tmp_path, ("train",))
    (tmp_path / "test" / "cat").mkdir(parents=True)
    data = module(tmp_path)
    data.prepare_data()
    with pytest.raises(SettingError, match=rf"^folder: there are no images that can be read in {tmp_path}/test"):
        data.evaluation("test")


@pytest.mark.parametrize(
    ("setting", "value"), [("image_size", 0), ("cutout", -1), ("batch_size", 0), ("architecture_share", 1.0)]
)
def test_a_wrong_setting_is_refused_by_name(tmp_path, setting, value):
    with pytest.raises(SettingError, match=rf"^{setting}: .* got {value}"):
        module(tmp_path, **{setting: value})


# -- what is read from the files -------------------------------------------------------------------------------------


def test_inputs_are_known_before_anything_is_prepared(tmp_path):
    pets(tmp_path, height=10, width=10)
    data = module(tmp_path)
    assert data.inputs == {"channels": 3, "image_size": 10, "num_classes": 2}
    rebuilt = DataModule.build(data.spec)
    assert rebuilt.inputs == data.inputs
    assert data.spec["init_args"]["folder"] == str(tmp_path)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(9, 9), (9, 9)], 9),
        ([(300, 300), (300, 300)], 300),  # their own size, however large
        ([(7, 7), (9, 9), (9, 9)], 9),  # a median
        ([(9, 20), (9, 20)], 9),
        ([(5, 20), (20, 9), (30, 13), (14, 15)], 11),  # of 5, 9, 13, 14
        ([(230, 300), (300, 300)], 224),
    ],
)
def test_the_size_is_that_of_the_training_images_or_the_median_of_their_shorter_sides(tmp_path, sizes, expected):
    files = {f"train/{'ab'[k % 2]}/{k}.png": noise(k, *size) for k, size in enumerate(sizes)}
    write(tmp_path, files | {f"test/a/{k}.png": noise(k, 40, 41) for k in range(9)})
    assert module(tmp_path).inputs["image_size"] == expected
    assert module(tmp_path, image_size=33).inputs["image_size"] == 33


def slow_statistics(images):
    """Mean and deviation of each channel, every image with the same weight."""
    values = [np.broadcast_to(image.reshape(*image.shape[:2], -1), (*image.shape[:2], 3)) / 255 for image in images]
    mean = np.mean([image.mean((0, 1)) for image in values], axis=0)
    return mean, np.sqrt(np.mean([((image - mean) ** 2).mean((0, 1)) for image in values], axis=0))


def test_mean_and_deviation_are_those_of_all_training_images(tmp_path):
    images = pets(tmp_path, ("train", "val", "test"))
    images["train/cat/dark.png"] = noise(1, 3, 50) // 4
    images["val/dog/grey.png"] = noise(2, 8, 4, channels=1)
    images["test/dog/bright.png"] = np.full((90, 90, 3), 255, np.uint8)
    write(tmp_path, images)
    mean, std = slow_statistics([image for path, image in images.items() if not path.startswith("test")])
    for settings in ({}, {"image_size": 3}, {"image_size": 100}):  # of the files as they are
        data = module(tmp_path, **settings)
        assert data.mean == pytest.approx(mean.tolist(), abs=1e-12)
        assert data.std == pytest.approx(std.tolist(), abs=1e-9)
    assert std[0] > 0.1


def test_images_of_one_size_have_the_statistics_of_all_their_pixels(tmp_path):
    images = [image for path, image in pets(tmp_path).items() if path.startswith("train")]
    data = module(tmp_path)
    assert data.mean == pytest.approx((np.stack(images) / 255).mean((0, 1, 2)).tolist(), abs=1e-12)
    assert data.std == pytest.approx((np.stack(images) / 255).std((0, 1, 2)).tolist(), abs=1e-9)
    batches = torch.cat([images for images, _ in data.evaluation("train")])
    assert batches.mean((0, 2, 3)).tolist() == pytest.approx([0] * 3, abs=1e-5)
    assert batches.std((0, 2, 3), correction=0).tolist() == pytest.approx([1] * 3, abs=1e-5)


def test_grey_images_have_one_channel(tmp_path):
    images = pets(tmp_path, ("train",), channels=1)
    write(tmp_path, {"test/cat/coloured.png": noise(0)})  # tests decide nothing
    data = module(tmp_path)
    assert data.inputs["channels"] == 1
    assert data.mean == pytest.approx([np.mean([i.mean() for i in images.values()]) / 255], abs=1e-12)
    assert [image.shape for image, _ in examples(data, "train") + examples(data, "test")] == [(6, 6, 1)] * 11
    write(tmp_path, {"train/dog/coloured.png": noise(0)})
    data = module(tmp_path)
    assert (data.inputs["channels"], len(data.mean)) == (3, 3)
    grey = next(iter(data.evaluation("train")))[0][0]
    assert torch.equal(*bytes_of(data, grey[None])[0, :2])


def test_a_channel_that_is_the_same_everywhere_gives_finite_batches(tmp_path):
    image = noise(0)
    image[..., 2] = 7
    write(tmp_path, {"train/a/1.png": image, "train/b/2.png": image})
    images, _ = next(iter(module(tmp_path).evaluation("train")))
    assert images.isfinite().all()
    assert images[:, 2].abs().max() < 1e-3


def palette(colours, pixels, transparency=None):
    image = Image.new("P", (len(pixels), 1))
    image.putpalette([value for colour in colours for value in colour])
    image.putdata(pixels)
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


COLOURS = [(255, 0, 10), (1, 200, 3), (0, 0, 0)]
DEEP = np.array([[0, 128, 129, 257, 40_000, 65_535]], np.uint16)
SCALED = [0, 0, 1, 1, 156, 255]
MODES = {
    "grey": (Image.fromarray(np.array([[0, 100, 255]], np.uint8)), "png", "L", [0, 100, 255]),
    "grey and transparent": (
        Image.merge("LA", [Image.fromarray(np.array([[v, 9]], np.uint8)) for v in (50, 0)]),
        "png",
        "L",
        [50, 9],
    ),
    "black and white": (Image.fromarray(np.array([[0, 255, 0]], np.uint8)).convert("1"), "png", "L", [0, 255, 0]),
    "16 bits": (Image.fromarray(DEEP), "png", "L", SCALED),
    "16 bits in a TIFF": (Image.fromarray(DEEP), "tif", "L", SCALED),
    "transparent": (
        Image.fromarray(np.array([[[1, 2, 3, 0], [4, 5, 6, 255]]], np.uint8)),
        "png",
        "RGB",
        [(1, 2, 3), (4, 5, 6)],
    ),
    "palette": (palette(COLOURS, [2, 0, 1]), "png", "RGB", [COLOURS[2], COLOURS[0], COLOURS[1]]),
    "palette with a transparent colour": (palette(COLOURS, [0, 1], 1), "png", "RGB", COLOURS[:2]),
    "palette with transparent colours": (palette(COLOURS, [0, 1, 2], bytes([9, 0, 255])), "png", "RGB", COLOURS),
    "palette in a GIF": (palette(COLOURS, [1, 0]), "gif", "RGB", [COLOURS[1], COLOURS[0]]),
    "inks": (Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "tif", "RGB", [(255, 0, 0)]),
}


@pytest.mark.parametrize(("image", "ending", "mode", "pixels"), MODES.values(), ids=MODES)
def test_every_kind_of_image_becomes_grey_or_coloured_bytes(tmp_path, image, ending, mode, pixels):
    image.save(tmp_path / f"image.{ending}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decode(tmp_path / f"image.{ending}")
    assert found.mode == mode
    assert np.asarray(found).tolist() == [[list(p) if isinstance(p, tuple) else p for p in pixels]]
    write(tmp_path, {f"data/train/{name}/1.{ending}": image for name in "ab"})
    data = module(tmp_path / "data", image_size=1)
    assert data.inputs["channels"] == (1 if mode == "L" else 3)


SIDEWAYS = (
    np.array([[[200] * 3, [20] * 3, [80] * 3], [[140] * 3, [240] * 3, [50] * 3]], np.uint8).repeat(8, 0).repeat(8, 1)
)
TURNED = {
    None: SIDEWAYS,
    1: SIDEWAYS,
    2: SIDEWAYS[:, ::-1],
    3: SIDEWAYS[::-1, ::-1],
    4: SIDEWAYS[::-1],
    5: SIDEWAYS.swapaxes(0, 1),
    6: np.rot90(SIDEWAYS, -1),  # a telephone that was held upright: a quarter to the right
    7: SIDEWAYS.swapaxes(0, 1)[::-1, ::-1],
    8: np.rot90(SIDEWAYS),
    9: SIDEWAYS,
}


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize(("orientation", "upright"), TURNED.items())
def test_photographs_are_turned_as_the_camera_noted(tmp_path, ending, orientation, upright):
    noted = Image.Exif()
    if orientation is not None:
        noted[0x0112] = orientation
    lossless = {"lossless": True} if ending == "webp" else {"quality": 95} if ending == "jpg" else {}
    Image.fromarray(SIDEWAYS).save(tmp_path / f"photograph.{ending}", exif=noted, **lossless)
    found = np.asarray(decode(tmp_path / f"photograph.{ending}"))
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).max() <= (3 if ending == "jpg" else 0)


def test_a_network_sees_photographs_upright(tmp_path):
    noted = Image.Exif()
    noted[0x0112] = 6
    for name in "ab":
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.fromarray(SIDEWAYS).save(tmp_path / "train" / name / "1.jpg", exif=noted, quality=95)
    data = module(tmp_path)
    assert data.inputs["image_size"] == 16
    expected = TURNED[6][4:20]  # the centre of 24 by 16
    for image, _ in examples(data, "train"):
        assert np.abs(image.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("noted", [b"garbage", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_notes_of_a_camera_do_not_break_the_image(tmp_path, noted):
    Image.fromarray(SIDEWAYS).save(tmp_path / "1.png", exif=noted)
    assert np.array_equal(np.asarray(decode(tmp_path / "1.png")), SIDEWAYS)


def test_pixels_without_a_known_range_are_broken(tmp_path):
    write(
        tmp_path,
        {"train/a/1.tif": Image.new("F", (4, 4)), "train/a/2.tif": Image.new("I", (4, 4)), "train/a/3.png": noise(3)}
        | {"train/b/4.png": noise(4)},
    )
    with pytest.warns(UserWarning, match="2 files in .* cannot be decoded(?s:.*)mode F have no known range"):
        assert len(examples(module(tmp_path), "train")) == 2


# -- one scan, kept --------------------------------------------------------------------------------------------------


def test_every_file_is_decoded_once_and_then_no_more(tmp_path, cache, opened):
    images = pets(tmp_path, ("train", "val", "test"))
    data = module(tmp_path)
    data.prepare_data()
    assert Counter(opened) == Counter(tmp_path / path for path in images)
    found = data.inputs, data.mean, data.std
    assert len(opened) == 30
    opened.clear()
    again = module(tmp_path, image_size=20, batch_size=2)
    again.prepare_data()
    assert (again.inputs, again.mean, again.std) == (found[0] | {"image_size": 20}, *found[1:])
    assert not opened
    (kept,) = cache.iterdir()
    assert json.loads(kept.read_text())["folder"] == str(tmp_path)


def changed(path):
    Image.fromarray(noise(99)).save(path)
    os.utime(path, ns=(1, 1))


CHANGES = {
    "other pixels": lambda folder: changed(folder / "train/cat/1.png"),
    "another time": lambda folder: os.utime(folder / "test/cat/1.png", ns=(5, 5)),
    "a file more": lambda folder: write(folder, {"train/cat/more.png": noise(0)}),
    "a file less": lambda folder: (folder / "train/cat/1.png").unlink(),
    "another name": lambda folder: (folder / "train/cat/1.png").rename(folder / "train/cat/one.png"),
    "another split": lambda folder: (folder / "train").rename(folder / "val") and pets(folder, ("train",)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_scan_is_made_anew_where_a_file_has_changed(tmp_path, opened, change):
    folder = tmp_path / "images"
    pets(folder)
    module(folder).prepare_data()
    change(folder)
    opened.clear()
    data = module(folder)
    data.prepare_data()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sorted(opened) == sorted(files)
    mean, _ = slow_statistics([np.asarray(Image.open(path)) for path in files if "test" not in path.parts])
    assert data.mean == pytest.approx(mean.tolist(), abs=1e-12)


def test_a_scan_of_another_version_is_made_anew(tmp_path, monkeypatch, opened):
    pets(tmp_path)
    for version, count in ((1, 20), (1, 0), (2, 20), (2, 0)):
        monkeypatch.setattr(image_folder, "SCAN_VERSION", version)
        opened.clear()
        module(tmp_path).prepare_data()
        assert len(opened) == count


def test_folders_are_kept_apart(tmp_path, opened):
    first, second = tmp_path / "one", tmp_path / "two"
    pets(first, height=5, width=5)
    pets(second, height=7, width=7)
    for _ in range(2):
        assert [module(folder).inputs["image_size"] for folder in (first, second)] == [5, 7]
    assert len(opened) == 40


def other_mean(content):
    found = json.loads(content)
    found["scan"]["mean"][0] += 0.1
    return json.dumps(found).encode()


DAMAGED = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:-20],
    "no text": lambda content: b"\xff" + content,
    "a list": lambda content: b"[1, 2]",
    "no scan": lambda content: b'{"digest": "x"}',
    "deeply nested": lambda content: b"[" * 100_000,
    "another number": other_mean,
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_cache_is_computed_anew(tmp_path, cache, opened, damage):
    pets(tmp_path)
    module(tmp_path).prepare_data()
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    opened.clear()
    module(tmp_path).prepare_data()
    assert len(opened) == 20
    assert kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch, opened):
    pets(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert module(tmp_path).inputs["image_size"] == 6
    assert len(opened) == 40


def test_without_the_variable_scans_are_kept_in_the_home_folder(tmp_path, monkeypatch):
    pets(tmp_path / "images")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    module(tmp_path / "images").prepare_data()
    assert len(list((tmp_path / ".cache" / "lightning_nas").glob("*.json"))) == 1


# -- broken images ---------------------------------------------------------------------------------------------------


def png(array):
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


def test_broken_images_are_named_and_left_out(tmp_path, opened):
    images = pets(tmp_path)
    whole = png(noise(0, 30, 30))
    broken = {"cut off": whole[: len(whole) // 2], "empty": b"", "text": b"hello", "foreign": b"GIF89a" + whole}
    write(tmp_path, {f"train/cat/{name}.png": content for name, content in broken.items()})
    (tmp_path / "train/cat/nowhere.png").symlink_to(tmp_path / "nothing")
    for scanned in (True, False):  # in every run, though the files are decoded in the first
        opened.clear()
        data = module(tmp_path)
        with pytest.warns(UserWarning, match="cannot be decoded and are left out") as caught:
            data.prepare_data()
        (message,) = [str(warning.message) for warning in caught if "left out" in str(warning.message)]
        assert message.startswith(f"5 files in {tmp_path} ")
        for name in (*broken, "nowhere"):
            assert f"train/cat/{name}.png: " in message
        assert bool(opened) == scanned
    same(examples(data, "train"), of(images, "train"))
    mean, _ = slow_statistics([image for image, _ in of(images, "train")])
    assert data.mean == pytest.approx(mean.tolist(), abs=1e-12)


def test_of_many_broken_images_ten_are_named(tmp_path):
    pets(tmp_path, ("train", "val", "test"), count=1)
    write(tmp_path, {f"{split}/cat/broken{k}.png": b"no" for split in ("train", "val", "test") for k in range(5)})
    data = module(tmp_path)
    with pytest.warns(UserWarning, match="^15 files in") as caught:
        data.prepare_data()
    assert "".join(str(warning.message) for warning in caught).count("/cat/broken") == 20  # path, and Pillow's words
    assert [len(examples(data, part)) for part in ("weights", "architecture", "test")] == [2, 2, 2]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_breaks_later_is_named(tmp_path, num_workers):
    pets(tmp_path)
    data = module(tmp_path, num_workers=num_workers)
    data.prepare_data()
    place = tmp_path / "train" / "dog" / "3.png"
    place.write_bytes(b"no image any more")
    with pytest.raises(SettingError, match=rf"folder: {place} could be read before, and now cannot"):
        list(data.evaluation("train"))


# -- what becomes of an image ----------------------------------------------------------------------------------------


def test_images_are_decoded_when_they_are_needed(tmp_path, opened):
    pets(tmp_path)
    data = module(tmp_path)
    data.prepare_data()
    stream, evaluation = data.stream("weights", 0), data.evaluation("architecture")
    opened.clear()
    stream.get(0)
    assert len(opened) == 4
    assert len(list(evaluation)) == 2
    assert len(opened) == 9
    assert {path.relative_to(tmp_path).parts[0] for path in opened} == {"train"}
    list(data.evaluation("test"))
    assert [path.relative_to(tmp_path).parts[0] for path in opened[9:]] == ["test"] * 10


def test_an_evaluation_crops_the_centre(tmp_path):
    images = {"train/a/1.png": noise(1, 6, 11), "train/a/2.png": noise(2, 14, 6), "train/b/3.png": noise(3, 6, 6)}
    write(tmp_path, images)
    data = module(tmp_path)
    assert data.inputs["image_size"] == 6
    wide, high, square = (image for image, _ in examples(data, "train"))
    assert np.array_equal(wide, images["train/a/1.png"][:, 2:8])
    assert np.array_equal(high, images["train/a/2.png"][4:10])
    assert np.array_equal(square, images["train/b/3.png"])


def test_an_evaluation_scales_the_shorter_side(tmp_path):
    """Halves: each pixel is about the mean of its four, but for the smoothing between neighbours."""
    ramp = np.arange(24, dtype=np.uint8) * 10
    image = np.stack(
        [np.tile(ramp, (12, 1)), np.tile(ramp[:12, None], (1, 24)), np.full((12, 24), 90, np.uint8)], axis=2
    )
    write(tmp_path, {"train/a/1.png": image, "train/b/2.png": image})
    (half, _), _ = examples(module(tmp_path, image_size=6), "train")
    expected = image.reshape(6, 2, 12, 2, 3).mean((1, 3))[:, 3:9]
    assert half.shape == (6, 6, 3)
    assert np.abs(half[1:-1, 1:-1].astype(float) - expected[1:-1, 1:-1]).max() <= 1
    (double, _), _ = examples(module(tmp_path, image_size=24), "train")
    assert double.shape == (24, 24, 3)
    assert double[12, ::2, 0].astype(float) == pytest.approx(ramp[6:18].astype(float) - 2.5, abs=1)


def windows(image, size, padding):
    """Every window of the padded image, and whether it is mirrored, by its bytes."""
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    found = {}
    for top in range(padded.shape[0] - size + 1):
        for left in range(padded.shape[1] - size + 1):
            window = padded[top : top + size, left : left + size]
            found[window.tobytes()] = (top, left, False)
            found[window[:, ::-1].tobytes()] = (top, left, True)
    return found


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 19)])
def test_small_training_images_are_padded_by_an_eighth_cropped_and_mirrored(tmp_path, height, width, flip):
    image = noise(0, height, width)
    write(tmp_path, {f"train/{'ab'[k % 2]}/{k}.png": image for k in range(8)})
    data = module(tmp_path, flip=flip, batch_size=8)
    places = windows(image, 16, 2)
    stream = data.stream("train", 0)
    seen = Counter()
    for index in range(60):
        for crop in bytes_of(data, stream.get(index)[0]):
            seen[places[crop.permute(1, 2, 0).numpy().tobytes()]] += 1
    assert {top for top, _, _ in seen} == set(range(5))
    assert {left for _, left, _ in seen} == set(range(5 + width - 16))
    assert sum(count for (_, _, mirrored), count in seen.items() if mirrored) == pytest.approx(
        240 * flip, abs=45 * flip
    )


@pytest.mark.parametrize("flip", [True, False])
def test_of_large_training_images_random_parts_are_taken(tmp_path, flip):
    """A pixel tells its place: red grows to the right, green downwards."""
    ramp = np.arange(120, dtype=np.uint8) * 2
    image = np.stack(
        [np.tile(ramp, (120, 1)), np.tile(ramp[:, None], (1, 120)), np.zeros((120, 120), np.uint8)], axis=2
    )
    write(tmp_path, {f"train/{'ab'[k % 2]}/{k}.png": image for k in range(8)})
    data = module(tmp_path, image_size=72, flip=flip, batch_size=8)
    stream = data.stream("train", 0)
    widths, heights, mirrored = [], [], 0
    for index in range(12):
        batch, _ = stream.get(index)
        assert batch.shape == (8, 3, 72, 72)
        for red, green, blue in bytes_of(data, batch).double():
            assert blue.max() == 0
            across, down = red.mean(0), green.mean(1)
            assert (red - across).abs().max() <= 1
            assert (green - down[:, None]).abs().max() <= 1
            mirrored += (across[-1] < across[0]).item()
            widths.append((across[60] - across[11]).abs().item() / 2 * 72 / 49)
            heights.append((down[60] - down[11]).item() / 2 * 72 / 49)
    areas, ratios = np.multiply(widths, heights) / 120**2, np.divide(widths, heights)
    assert 0.07 < areas.min() < 0.2
    assert 0.85 < areas.max() < 1.02
    assert 0.7 < ratios.min() < 0.85
    assert 1.2 < ratios.max() < 1.4
    assert mirrored == pytest.approx(48 * flip, abs=20 * flip)


def test_cutout_is_for_training_images_alone(tmp_path):
    pets(tmp_path)
    plain, cut = module(tmp_path), module(tmp_path, cutout=2)
    for (before, _), (after, _) in ((plain.stream("train", 0).get(k), cut.stream("train", 0).get(k)) for k in range(4)):
        kept = after != 0
        assert torch.equal(after, before * kept)
        assert set((~kept.all(1)).sum((1, 2)).tolist()) <= {1, 2, 4}
    assert torch.equal(*(next(iter(data.evaluation("weights")))[0] for data in (plain, cut)))


# -- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_size", [None, 70])
def test_a_batch_depends_on_the_seed_and_its_number_alone(tmp_path, image_size):
    pets(tmp_path)
    first = [module(tmp_path, image_size=image_size).stream("train", 0).get(index) for index in range(6)]
    stream = module(tmp_path, image_size=image_size).stream("train", 0)
    torch.manual_seed(7)
    for index in (5, 0, 3, 3, 1, 4, 2):
        torch.rand(index)
        assert all(torch.equal(one, other) for one, other in zip(stream.get(index), first[index], strict=True))
    assert not torch.equal(first[0][0], module(tmp_path, image_size=image_size).stream("train", 1).get(0)[0])
    assert torch.equal(pickle.loads(pickle.dumps(stream)).get(0)[0], first[0][0])  # in another process


@pytest.mark.parametrize("image_size", [None, 70])
def test_workers_give_the_same_batches(tmp_path, image_size):
    pets(tmp_path, ("train", "val", "test"))

    def batches(num_workers):
        data = module(tmp_path, num_workers=num_workers, image_size=image_size, cutout=3)
        streams = {part: data.stream(part, 0) for part in ("weights", "architecture")}
        steps = list(Schedule(streams, 4, lambda: (1, 0), num_workers=num_workers))
        return [batch for step in steps for batch in step.values()] + list(data.evaluation("test"))

    alone, workers = batches(0), batches(2)
    assert len(alone) == len(workers) == 11
    for one, other in zip(alone, workers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# -- without labels ----------------------------------------------------------------------------------------------------


def test_images_without_classes_may_lie_anywhere_below_train(tmp_path):
    images = {
        path: noise(k) for k, path in enumerate(("train/a.png", "train/b.png", "train/some/c.png", "train/d.png"))
    }
    write(tmp_path, images)
    data = module(tmp_path, batch_size=2, labelled=False, flip=False)
    assert data.inputs == {"channels": 3, "image_size": 6}
    found = torch.cat(list(data.evaluation("train", labelled=False)))
    read = [image.permute(1, 2, 0).numpy() for image in bytes_of(data, found)]
    assert all(np.array_equal(image, images[path]) for image, path in zip(read, sorted(images), strict=True))
    assert data.stream("train", 0, views=2, labelled=False).get(0).shape == (2, 2, 3, 6, 6)
    assert set(data.sizes().values()) == {2}
    with pytest.raises(SettingError, match=r"^labelled: false, and this reads labels"):
        data.stream("train", 0)


def test_a_folder_of_classes_can_be_read_without_them(tmp_path):
    images = pets(tmp_path, ("train", "val"), count=3)
    data = module(tmp_path, labelled=False)
    own = [image for split in ("train", "val") for image, _ in of(images, split)]
    read = bytes_of(data, torch.cat(list(data.evaluation("train", labelled=False))))
    assert all(np.array_equal(a.permute(1, 2, 0).numpy(), b) for a, b in zip(read, own, strict=True))
    assert data.sizes() == {"weights images": 6, "architecture images": 6}  # train/ and val/, as with labels


def test_a_folder_without_images_is_refused_without_labels_too(tmp_path):
    (tmp_path / "train" / "empty").mkdir(parents=True)
    with pytest.raises(SettingError, match=r"^folder: there are no images in .*train; read are \.jpg"):
        module(tmp_path, labelled=False).inputs  # noqa: B018


def test_views_are_made_of_files_that_are_decoded_once(tmp_path, opened):
    pets(tmp_path)
    data = module(tmp_path)
    data.prepare_data()
    opened.clear()
    images, _ = data.stream("weights", 0, views=3).get(0)
    assert images.shape == (4, 3, 3, 6, 6)
    assert len(opened) == 4


REAL = Path(os.environ.get("LIGHTNING_NAS_DATA", "data"), "cifar10-images")


@pytest.mark.skipif(
    not (REAL / "train").is_dir(),
    reason="needs CIFAR-10 as files: set LIGHTNING_NAS_DATA to the folder that holds cifar10-images/train/CLASS/*.jpg",
)
def test_real_photographs(tmp_path):
    for split in ("train", "test"):
        for place in (REAL / split).iterdir():
            (tmp_path / split / place.name).mkdir(parents=True)
            for path in sorted(place.iterdir())[:40]:
                (tmp_path / split / place.name / path.name).symlink_to(path.resolve())
    data = module(tmp_path, batch_size=50)
    data.prepare_data()
    assert data.inputs == {"channels": 3, "image_size": 32, "num_classes": 10}
    assert data.mean == pytest.approx([0.491, 0.482, 0.447], abs=0.05)
    assert data.std == pytest.approx([0.247, 0.243, 0.262], abs=0.05)
    images, labels = data.stream("weights", 0).get(0)
    assert images.shape == (50, 3, 32, 32)
    assert len(labels.unique()) > 5
    assert (images[..., 1:] - images[..., :-1]).abs().mean() < images.std() / 2  # neighbours are alike
