"""CIFAR-10: the published layout is read in order, a wrong folder is refused by name, and no file can run code."""

import hashlib
import json
import os
import pickle
import warnings
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10 as Archive

from lightning_nas.data import CIFAR10
from lightning_nas.errors import SettingError

BATCHES = [f"data_batch_{k}" for k in range(1, 6)]


def content(batch, count):
    """Image k of batch b has red b, green k and blue b + k; its label is (b + k) % 10."""
    images = np.zeros((count, 3, 32, 32), np.uint8)
    for k in range(count):
        images[k] += np.array([batch, k, batch + k], np.uint8).reshape(3, 1, 1)
    images[:, :, 0, 5] = 200  # row 0, column 5
    return {"data": images.reshape(count, -1), "labels": [(batch + k) % 10 for k in range(count)]}


def archive(folder, protocol=4):
    """The published layout, with two images in each training batch and three in the test batch."""
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True)
    for batch, name in enumerate([*BATCHES, "test_batch"], start=1):
        written = pickle.dumps(content(batch, 3 if name == "test_batch" else 2), protocol)
        if protocol == 2:  # as published in 2009: by an older NumPy
            written = written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        (place / name).write_bytes(written)
    return place


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_the_published_layout_is_read_in_order(tmp_path, protocol):
    archive(tmp_path, protocol)
    data = CIFAR10(folder=str(tmp_path), verify=False, batch_size=4, num_workers=0)
    data.prepare_data()
    images, labels = data.load(test=False)
    assert (images.shape, images.dtype) == ((10, 3, 32, 32), torch.uint8)
    numbers = [(batch, k) for batch in range(1, 6) for k in range(2)]
    assert images[:, :, 31, 31].tolist() == [[batch, k, batch + k] for batch, k in numbers]
    assert (images == 200).nonzero()[:, 2:].unique(dim=0).tolist() == [[0, 5]]
    assert labels.tolist() == [batch + k for batch, k in numbers]
    images, labels = data.load(test=True)
    assert images[:, :, 31, 31].tolist() == [[6, k, 6 + k] for k in range(3)]
    assert labels.tolist() == [6, 7, 8]


def test_batches_are_normalised_and_training_images_cropped_and_flipped(tmp_path):
    archive(tmp_path)
    data = CIFAR10(folder=str(tmp_path), verify=False, batch_size=5, num_workers=0)
    assert data.inputs == {"channels": 3, "image_size": 32, "num_classes": 10}
    images, labels = next(iter(data.evaluation("test")))
    assert labels.tolist() == [6, 7, 8]
    for k in range(3):
        expected = [(v / 255 - m) / s for v, m, s in zip((6, k, 6 + k), data.mean, data.std, strict=True)]
        assert images[k, :, 31, 31].tolist() == pytest.approx(expected, abs=1e-6)
    stream = data.stream("train", seed=0)
    columns = set()
    for index in range(40):
        batch, _ = stream.get(index)
        assert batch.shape == (5, 3, 32, 32)
        bright = (batch[:, 0] > 1).nonzero()  # where the bright pixel of row 0 went, unless it was cut off
        assert set(bright[:, 1].tolist()) <= set(range(5))
        columns |= set(bright[:, 2].tolist())
    assert columns == {*range(1, 10), *range(22, 31)}  # 5 ± 4, and mirrored 26 ± 4


def test_the_folder_is_the_one_given_else_that_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("LIGHTNING_NAS_DATA", raising=False)
    assert CIFAR10().folder == Path("data")
    monkeypatch.setenv("LIGHTNING_NAS_DATA", str(tmp_path))
    assert CIFAR10().folder == tmp_path
    assert CIFAR10(folder="elsewhere").folder == Path("elsewhere")
    assert CIFAR10().spec["init_args"]["folder"] is None  # a checkpoint can be used on another machine


def test_a_missing_folder_says_what_to_put_where(tmp_path):
    with pytest.raises(SettingError) as caught:
        CIFAR10(folder=str(tmp_path), download=False).prepare_data()
    message = str(caught.value)
    assert message.startswith(f"folder: CIFAR-10 is not in {tmp_path}")
    for said in ("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", "cifar-10-batches-py/", "verify"):
        assert said in message
    assert "\n" not in message
    with pytest.raises(SettingError, match=rf"^folder: no cifar-10-batches-py/ in {tmp_path}\. Put the batches"):
        CIFAR10(folder=str(tmp_path), download=False, verify=False).prepare_data()
    assert not list(tmp_path.iterdir())


# -- download and checksums ------------------------------------------------------------------------------------------


@pytest.fixture
def downloads(monkeypatch):
    """What is asked to be downloaded; there is no network."""
    asked = []

    def download(self):
        asked.append(self.root)
        raise URLError("no network")

    monkeypatch.setattr(Archive, "download", download)
    return asked


def publish(monkeypatch, place):
    """From here on these files are the published ones."""

    def checksum(name):
        return hashlib.md5((place / name).read_bytes()).hexdigest()

    monkeypatch.setattr(Archive, "train_list", [[name, checksum(name)] for name in BATCHES])
    monkeypatch.setattr(Archive, "test_list", [["test_batch", checksum("test_batch")]])


def test_what_is_not_there_is_downloaded(tmp_path, downloads):
    with pytest.raises(SettingError, match=r"^folder: CIFAR-10 is not in .* could not be downloaded .*no network"):
        CIFAR10(folder=str(tmp_path)).prepare_data()
    assert downloads == [str(tmp_path)]


def test_the_published_files_are_taken_as_they_are(tmp_path, monkeypatch, downloads):
    publish(monkeypatch, archive(tmp_path))
    CIFAR10(folder=str(tmp_path)).prepare_data()
    CIFAR10(folder=str(tmp_path), download=False).prepare_data()
    assert not downloads


def test_a_missing_batch_beside_published_ones_is_downloaded(tmp_path, monkeypatch, downloads):
    place = archive(tmp_path)
    publish(monkeypatch, place)
    (place / BATCHES[2]).unlink()
    with pytest.raises(SettingError, match="could not be downloaded"):
        CIFAR10(folder=str(tmp_path)).prepare_data()
    assert downloads == [str(tmp_path)]


@pytest.mark.parametrize("download", [True, False])
def test_files_that_are_not_the_published_ones_are_named_and_never_written_over(
    tmp_path, monkeypatch, downloads, download
):
    place = archive(tmp_path)
    publish(monkeypatch, place)
    (place / BATCHES[1]).write_bytes(b"encoded again")
    (place / BATCHES[4]).unlink()
    with pytest.raises(SettingError) as caught:
        CIFAR10(folder=str(tmp_path), download=download).prepare_data()
    assert str(caught.value).startswith(f"folder: in {place} the checksums of data_batch_2 are not the published ones")
    assert "set verify to false" in str(caught.value)
    assert not downloads
    assert (place / BATCHES[1]).read_bytes() == b"encoded again"
    CIFAR10(folder=str(tmp_path), download=download, verify=False).prepare_data()


# -- a published division --------------------------------------------------------------------------------------------


def published_split(path, weights, architecture):
    path.write_text(
        json.dumps({"train": ["int", list(map(str, weights))], "valid": ["int", list(map(str, architecture))]})
    )
    return str(path)


def packed_mask(path, mask):
    np.savez(path, train_mask_packed=np.packbits(mask))
    return str(path)


def parts(data):
    return {
        part: [label for _, labels in data.evaluation(part) for label in labels.tolist()]
        for part in ("weights", "architecture", "train")
    }


def test_both_forms_of_a_split_file_say_which_images_the_weights_are_trained_on(tmp_path):
    archive(tmp_path)  # ten images, labelled 1 2 2 3 3 4 4 5 5 6
    mask = [1, 0, 0, 1, 0, 0, 0, 1, 0, 0]
    files = [
        published_split(tmp_path / "cifar-split.txt", [7, 0, 3], [1, 2, 4, 5, 6, 8, 9]),
        packed_mask(tmp_path / "split.npz", mask),
    ]
    for split in files:
        data = CIFAR10(folder=str(tmp_path), verify=False, num_workers=0, batch_size=3, split=split)
        assert parts(data) == {
            "weights": [1, 3, 5],
            "architecture": [2, 2, 3, 4, 4, 5, 6],
            "train": [1, 2, 2, 3, 3, 4, 4, 5, 5, 6],
        }
        assert sorted(data.stream("weights", 0).get(0)[1].tolist()) == [1, 3, 5]
        assert data.spec["init_args"]["split"] == split


@pytest.mark.filterwarnings("ignore:.*has none of these classes")
@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, None),
        ({"architecture_share": 0.3}, "architecture_share 0.3"),
        ({"architecture_share": 0.3, "split_seed": 1}, "architecture_share 0.3 and split_seed 1"),
    ],
)
def test_a_random_division_that_is_asked_for_beside_a_split_is_said_to_change_nothing(tmp_path, split, settings, named):
    archive(tmp_path)
    path = published_split(tmp_path / "s.txt", [7, 0, 3], [1, 2, 4, 5, 6, 8, 9]) if split else None
    data = CIFAR10(str(tmp_path), verify=False, num_workers=0, split=path, **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.evaluation("weights")
    message = f"{named} changes nothing here: the file {path} divides the training images"
    found = [str(warning.message) for warning in caught if "nothing here" in str(warning.message)]
    assert [text.partition(",")[0] for text in found] == ([message] if split and named else [])


@pytest.mark.filterwarnings("ignore:.*has none of these classes")
def test_a_batch_larger_than_a_part_of_a_split_names_the_file(tmp_path):
    archive(tmp_path)
    path = published_split(tmp_path / "s.txt", [7, 0, 3], [1, 2, 4, 5, 6, 8, 9])
    data = CIFAR10(str(tmp_path), verify=False, num_workers=0, batch_size=4, split=path)
    with pytest.raises(SettingError, match=rf"^batch_size: 4 is .* the 3 images of the weights .* in the file {path} "):
        data.stream("weights", 0)


def test_a_split_of_all_training_images_is_read_whole(tmp_path):
    generator = np.random.default_rng(0)
    mask = generator.permutation(np.arange(50_000) % 2)
    weights, architecture = np.flatnonzero(mask), np.flatnonzero(1 - mask)
    packed = packed_mask(tmp_path / "split.npz", mask)
    assert len(np.load(packed)["train_mask_packed"]) == 6250
    published = published_split(tmp_path / "s.txt", generator.permutation(weights), generator.permutation(architecture))
    for split in (packed, published):
        found = CIFAR10(split=split).division(50_000)
        assert [part.tolist() for part in found] == [weights.tolist(), architecture.tolist()]


def split_text(train, valid):
    return json.dumps({"train": train, "valid": valid}).encode()


def saved(**arrays):
    def write(path):
        np.savez(path, **arrays)

    return write


def renamed(save):
    def write(path):
        with open(path, "wb") as file:
            save(file)

    return write


HOSTILE = {
    "missing": ("s.txt", None, "No such file"),
    "empty": ("s.txt", b"", "Expecting value"),
    "no JSON": ("s.txt", b"train: 1", "Expecting value"),
    "no text": ("s.txt", b"\xff\xfe\x00", "decode"),
    "deeply nested": ("s.txt", b"[" * 100_000, "recursion"),
    "a list": ("s.txt", b"[1, 2]", "list"),
    "no valid": ("s.txt", b'{"train": ["int", ["1"]]}', "valid"),
    "another kind": ("s.txt", split_text(["str", ["1"]], ["int", ["2"]]), "train has to be"),
    "numbers without kind": ("s.txt", split_text([1, 3, 4], [2]), "values"),
    "a float": ("s.txt", split_text(["int", ["1.5"]], ["int", ["2"]]), "1.5"),
    "a list in a list": ("s.txt", split_text(["int", [["1"]]], ["int", ["2"]]), "train has to be"),
    "none for the weights": ("s.txt", split_text(["int", []], ["int", ["2"]]), "each part needs an image"),
    "none for the architecture": ("s.txt", split_text(["int", ["2"]], ["int", []]), "each part needs an image"),
    "below the range": ("s.txt", split_text(["int", ["-1"]], ["int", ["2"]]), "from 0 to 49999"),
    "above the range": ("s.txt", split_text(["int", ["1"]], ["int", ["50000"]]), "from 0 to 49999"),
    "far above": ("s.txt", split_text(["int", ["1"]], ["int", ["9" * 30]]), ""),
    "overlapping": ("s.txt", split_text(["int", ["1", "2"]], ["int", ["3", "2"]]), "one part only"),
    "twice in a part": ("s.txt", split_text(["int", ["1", "1"]], ["int", ["3"]]), "there once"),
    "no archive": ("s.npz", b"PK and more", ""),
    "another array": ("s.npz", saved(mask=np.zeros(6250, np.uint8)), "arrays mask"),
    "two arrays": ("s.npz", saved(train_mask_packed=np.ones(6250, np.uint8), more=np.ones(2)), "arrays"),
    "too short": ("s.npz", saved(train_mask_packed=np.ones(6249, np.uint8)), "6250 bytes"),
    "not packed": ("s.npz", saved(train_mask_packed=np.ones(50_000, np.uint8)), "6250 bytes"),
    "no bytes": ("s.npz", saved(train_mask_packed=np.ones(6250)), "6250 bytes"),
    "all for the weights": ("s.npz", saved(train_mask_packed=np.full(6250, 255, np.uint8)), "each part needs an image"),
    "one array alone": ("s.npz", renamed(lambda file: np.save(file, np.ones(6250, np.uint8))), ""),
}


@pytest.mark.parametrize(("name", "content", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_wrong_split_file_is_refused_by_name_before_anything_else(tmp_path, downloads, name, content, reason):
    path = tmp_path / name
    if callable(content):
        content(path)
    elif content is not None:
        path.write_bytes(content)
    data = CIFAR10(folder=str(tmp_path), split=str(path))
    for call in (data.prepare_data, lambda: data.division(50_000)):
        with pytest.raises(SettingError) as caught:
            call()
        message = str(caught.value)
        assert message.startswith(f"split: {path} does not divide the 50000 training images (")
        assert reason in message
        assert "\n" not in message
    assert not downloads


# -- forged and damaged files ----------------------------------------------------------------------------------------


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_forged_batch_cannot_run_code(tmp_path):
    place = archive(tmp_path)
    marker = tmp_path / "it ran"
    forged = pickle.dumps({**content(1, 2), "extra": RunsCode(marker)})
    pickle.loads(forged)
    assert marker.exists()  # it is a working forgery
    marker.unlink()
    (place / BATCHES[0]).write_bytes(forged)
    with pytest.raises(SettingError, match=r"^folder: .*data_batch_1 is not a batch of CIFAR-10 \(pathlib"):
        CIFAR10(folder=str(tmp_path), verify=False).load(test=False)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["array", "file"])
def test_a_forged_split_cannot_run_code(tmp_path, kind):
    marker = tmp_path / "it ran"
    path = tmp_path / "split.npz"
    forged = np.array([RunsCode(marker)], dtype=object)
    if kind == "array":
        np.savez(path, train_mask_packed=forged)
    else:
        path.write_bytes(pickle.dumps(forged))
    with pytest.raises(SettingError, match=r"^split: .*[Pp]ickle"):
        CIFAR10(split=str(path)).division(50_000)
    assert not marker.exists()


GOOD = content(3, 2)
DAMAGED = {
    "empty": b"",
    "text": b"hello, this is no pickle",
    "protocol": b"\x80\xff",
    "cut off": pickle.dumps(GOOD)[:-3000],
    "a list": pickle.dumps([1, 2]),
    "no labels": pickle.dumps({"data": GOOD["data"]}),
    "a label too few": pickle.dumps({**GOOD, "labels": [3]}),
    "a label of 10": pickle.dumps({**GOOD, "labels": [3, 10]}),
    "a negative label": pickle.dumps({**GOOD, "labels": [-1, 4]}),
    "labels that are words": pickle.dumps({**GOOD, "labels": ["a", "b"]}),
    "another size": pickle.dumps({**GOOD, "data": GOOD["data"][:, :-1]}),
    "floats": pickle.dumps({**GOOD, "data": GOOD["data"] / 255}),
    "no array": pickle.dumps({**GOOD, "data": "pixels"}),
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_batch_is_refused_by_name(tmp_path, damaged):
    (archive(tmp_path) / "data_batch_3").write_bytes(damaged)
    with pytest.raises(SettingError, match=r"^folder: .*data_batch_3 is not a batch of CIFAR-10"):
        CIFAR10(folder=str(tmp_path), verify=False).load(test=False)


def test_a_missing_batch_is_refused_by_name(tmp_path):
    (archive(tmp_path) / "test_batch").unlink()
    with pytest.raises(SettingError, match=r"^folder: .*test_batch is not a batch of CIFAR-10"):
        CIFAR10(folder=str(tmp_path), verify=False).load(test=True)


@pytest.mark.skipif(
    not Path(os.environ.get("LIGHTNING_NAS_DATA", "data"), "cifar-10-batches-py").is_dir(),
    reason="needs CIFAR-10: set LIGHTNING_NAS_DATA to the folder that holds cifar-10-batches-py/",
)
def test_the_real_images():
    data = CIFAR10(verify=False, download=False, num_workers=0, batch_size=50)
    data.prepare_data()
    for test in (False, True):
        images, labels = data.load(test)
        assert images.shape == (len(labels), 3, 32, 32)
        assert labels.unique().tolist() == list(range(10))
        shares = labels.bincount(minlength=10) / len(labels)
        assert shares.tolist() == pytest.approx([0.1] * 10, abs=0.01)
    images = data.load(test=False)[0][:1000] / 255  # a part will do
    assert images.mean((0, 2, 3)).tolist() == pytest.approx(data.mean, abs=0.05)
    assert images.std((0, 2, 3)).tolist() == pytest.approx(data.std, abs=0.05)
    neighbours = 255 * (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().mean().item()
    assert neighbours < 20  # natural images, read row by row
    batch, _ = data.stream("weights", 0).get(0)
    assert batch.shape == (50, 3, 32, 32)
