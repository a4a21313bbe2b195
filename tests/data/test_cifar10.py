"""CIFAR-10: the published layout is read in order, a wrong folder is refused by name, and no file can run code."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

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
    assert message.startswith(f"data.folder: CIFAR-10 is not in {tmp_path}")
    for said in ("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", "cifar-10-batches-py/", "data.verify"):
        assert said in message
    assert "\n" not in message
    with pytest.raises(SettingError, match=rf"^data\.folder: no cifar-10-batches-py/ in {tmp_path}\. Put the batches"):
        CIFAR10(folder=str(tmp_path), download=False, verify=False).prepare_data()
    assert not list(tmp_path.iterdir())


def test_files_that_are_not_the_published_ones_are_refused_unless_told_otherwise(tmp_path):
    archive(tmp_path)
    with pytest.raises(SettingError, match=r"^data\.folder: .* set data\.verify to false"):
        CIFAR10(folder=str(tmp_path), download=False).prepare_data()


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
    with pytest.raises(SettingError, match=r"^data\.folder: .*data_batch_1 is no batch of CIFAR-10 \(pathlib"):
        CIFAR10(folder=str(tmp_path), verify=False).load(test=False)
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
    with pytest.raises(SettingError, match=r"^data\.folder: .*data_batch_3 is no batch of CIFAR-10"):
        CIFAR10(folder=str(tmp_path), verify=False).load(test=False)


def test_a_missing_batch_is_refused_by_name(tmp_path):
    (archive(tmp_path) / "test_batch").unlink()
    with pytest.raises(SettingError, match=r"^data\.folder: .*test_batch is no batch of CIFAR-10"):
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
