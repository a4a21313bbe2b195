"""The digits of scikit-learn: which images are in which part, what is done to them, and someone else's module."""

from collections import Counter

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from lightning_nas.data import Digits
from lightning_nas.errors import SettingError


@pytest.fixture(scope="module")
def published():
    """Images ``(1797, 8, 8)`` of 0 to 16, labels ``(1797,)``."""
    bunch = load_digits()
    return bunch.images, bunch.target


def examples(data, part):
    """Image and label of every example, on the scale of the published images."""
    found = []
    for images, labels in data.evaluation(part):
        mean, std = torch.tensor(data.mean).view(1, -1, 1, 1), torch.tensor(data.std).view(1, -1, 1, 1)
        grey = ((images * std + mean) * 16).round().byte()
        found += [(image.numpy().tobytes(), label.item()) for image, label in zip(grey, labels, strict=True)]
    return found


def test_the_parts_are_all_published_digits_each_once(published):
    images, labels = published
    data = Digits()
    parts = {part: examples(data, part) for part in ("weights", "architecture", "test")}
    assert {part: len(found) for part, found in parts.items()} == {"weights": 719, "architecture": 718, "test": 360}
    everything = Counter((image.astype(np.uint8).tobytes(), label) for image, label in zip(images, labels, strict=True))
    assert sum(everything.values()) == 1797
    assert Counter(example for found in parts.values() for example in found) == everything
    assert sorted(examples(data, "train")) == sorted(parts["weights"] + parts["architecture"])
    for found in parts.values():  # no digit is missing anywhere
        assert min(Counter(label for _, label in found).values()) > 0.05 * len(found)


def test_the_division_depends_on_split_seed_alone_and_the_test_part_on_nothing():
    torch.manual_seed(0)
    first = {part: examples(Digits(), part) for part in ("weights", "architecture", "test")}
    torch.manual_seed(1)
    again = Digits(batch_size=100)
    assert {part: examples(again, part) for part in first} == first
    other = Digits(split_seed=1, architecture_share=0.2)
    assert len(examples(other, "architecture")) == 287
    assert examples(other, "test") == first["test"]
    assert set(examples(other, "architecture")) - set(first["architecture"])
    large = Digits(image_size=16)
    for part in first:
        labels = [label for _, batch in large.evaluation(part) for label in batch.tolist()]
        assert labels == [label for _, label in first[part]]


def test_mean_and_deviation_are_those_of_the_training_images():
    data = Digits()
    pixels = torch.cat([images for images, _ in data.evaluation("train")])
    assert len(pixels) == 1437
    # measured on what they normalise: so normalised, pixels have mean 0 and deviation 1
    on_scale = pixels.double() * data.std[0] + data.mean[0]
    assert on_scale.mean().item() == pytest.approx(data.mean[0], abs=1e-3)
    assert on_scale.std().item() == pytest.approx(data.std[0], abs=1e-3)
    assert pixels.mean().item() == pytest.approx(0, abs=1e-2)
    assert pixels.std().item() == pytest.approx(1, abs=1e-2)


def test_pixels_are_the_published_ones_normalised(published):
    images, labels = published
    digits = {(image.astype(np.uint8).tobytes(), label): image for image, label in zip(images, labels, strict=True)}
    data = Digits()
    batch, _ = next(iter(data.evaluation("test")))
    for image, key in zip(batch, examples(data, "test"), strict=False):
        expected = (np.round(digits[key] * 255 / 16) / 255 - 0.305) / 0.376
        assert image[0].numpy() == pytest.approx(expected, abs=1e-5)


def test_another_size_and_more_channels():
    small, large = Digits(), Digits(image_size=32, channels=3)
    assert large.inputs == {"channels": 3, "image_size": 32, "num_classes": 10}
    (images, labels), (wide, same) = (next(iter(data.evaluation("architecture"))) for data in (small, large))
    assert torch.equal(labels, same)
    assert wide.shape == (64, 3, 32, 32)
    assert torch.equal(wide[:, 0], wide[:, 1])
    assert torch.equal(wide[:, 0], wide[:, 2])
    expected = F.interpolate(images, (32, 32), mode="bilinear", align_corners=False)
    assert (wide[:, :1] - expected).abs().max().item() < 1.01 / 255 / 0.376  # bytes in between: up to a level
    stream = large.stream("weights", 0)
    assert stream.get(0)[0].shape == (64, 3, 32, 32)
    assert len(stream) == 719 // 64


def test_training_images_are_shifted_by_up_to_an_eighth():
    """Each is one of the nine shifts of its plain image by up to a pixel, and all nine occur."""
    data = Digits()
    plain = {}
    for images, labels in data.evaluation("weights"):
        for image, label in zip(images, labels.tolist(), strict=True):
            padded = F.pad(image, (1, 1, 1, 1), value=-0.305 / 0.376)
            for i in range(3):
                for j in range(3):
                    shifted = (padded[:, i : i + 8, j : j + 8] * 100).round().to(torch.int16)
                    plain[shifted.numpy().tobytes(), label] = (i, j)
    stream = data.stream("weights", seed=0)
    shifts = Counter()
    for index in range(3):
        for image, label in zip(*stream.get(index), strict=True):
            shifts[plain[(image * 100).round().to(torch.int16).numpy().tobytes(), label.item()]] += 1
    assert len(shifts) == 9


@pytest.mark.parametrize(("setting", "value"), [("image_size", 7), ("channels", 0), ("batch_size", 0)])
def test_a_wrong_setting_is_refused_by_name(setting, value):
    with pytest.raises(SettingError, match=rf"^{setting}: at least \d, got {value}$"):
        Digits(**{setting: value})


# -- someone else's LightningModule ----------------------------------------------------------------------------------


class Linear(pl.LightningModule):
    """Knows nothing of this library: no schedule, no streams."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.seen = {"fit": [], "validate": [], "test": []}

    def step(self, batch, stage):
        images, labels = batch
        self.seen[stage].append((images.clone(), labels.clone()))
        return F.cross_entropy(self.layer(images.flatten(1)), labels)

    def training_step(self, batch, batch_idx):
        return self.step(batch, "fit")

    def validation_step(self, batch, batch_idx):
        self.step(batch, "validate")

    def test_step(self, batch, batch_idx):
        self.step(batch, "test")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_someone_elses_module_trains_on_plain_batches(tmp_path):
    torch.manual_seed(0)
    data, module = Digits(batch_size=32), Linear()
    before = module.layer.weight.detach().clone()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=2,
        limit_train_batches=2,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 2
    assert not torch.equal(module.layer.weight, before)
    assert [images.shape for images, _ in module.seen["fit"]] == [(32, 1, 8, 8)] * 2
    weights = Counter(label for _, label in examples(Digits(), "weights"))
    taken = Counter(torch.cat([labels for _, labels in module.seen["fit"]]).tolist())
    assert taken <= weights
    trainer.test(module, datamodule=data, verbose=False)
    for stage, part in (("validate", "architecture"), ("test", "test")):
        expected = list(Digits(batch_size=32).evaluation(part))
        assert len(module.seen[stage]) == len(expected)
        for (images, labels), (plain, same) in zip(module.seen[stage], expected, strict=True):
            assert torch.equal(images, plain)
            assert torch.equal(labels, same)
