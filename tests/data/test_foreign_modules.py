"""Our data in anybody's ``LightningModule``: what each call of the trainer delivers."""

import json
import os
import subprocess
import sys
from collections import Counter

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from lightning_nas.data import ClutteredDigits, Digits, ImageFolder, NoData, PyDocs, TextFiles
from lightning_nas.errors import SettingError
from lightning_nas.testing.method import quiet_trainer
from tests.helpers.ranks import ROOT


class Reader(pl.LightningModule):
    """Somebody else's module, which keeps the batches that it is given; its names mean other things than ours."""

    schedule = "cosine"
    task = "classification"
    reads = 3

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = {"fit": [], "validate": [], "test": [], "predict": []}

    def forward(self, batch):
        self.seen["predict"].append(batch)
        return batch

    def training_step(self, batch):
        self.seen["fit"].append(batch)
        return self.weight**2

    def validation_step(self, batch):
        self.seen["validate"].append(batch)

    def test_step(self, batch):
        self.seen["test"].append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class OnEverything(Reader):
    validation_part = None


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    from torchvision.io import write_png

    folder = tmp_path_factory.mktemp("images")
    for split, count in (("train", 10), ("test", 5)):
        for label in ("cat", "dog"):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                write_png(torch.full((3, 8, 8), number, dtype=torch.uint8), f"{folder}/{split}/{label}/{number}.png")
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for split in ("train", "valid", "test"):
        words = "the cat sat on the mat and the dog lay by the door\n" * 30
        for name in (f"{split}.txt", f"ptb.{split}.txt"):
            (folder / name).write_text(words)
    return folder


@pytest.fixture
def made(request, images, text):
    """The data module of a name, small."""
    return {
        "Digits": lambda: Digits(batch_size=100),
        "ClutteredDigits": lambda: ClutteredDigits(batch_size=500),
        "ImageFolder": lambda: ImageFolder(str(images), image_size=8, batch_size=4),
        "PyDocs": lambda: PyDocs(batch_size=256, evaluation_batch_size=256),
        "TextFiles": lambda: TextFiles(str(text), batch_size=8),
    }[request.param]()


every = pytest.mark.parametrize(
    "made", ["Digits", "ClutteredDigits", "ImageFolder", "PyDocs", "TextFiles"], indirect=True
)


def flat(batches):
    """Of images their bytes, of text all parts of its windows, in order."""
    parts = [batch if torch.is_tensor(batch) else batch[0] for batch in batches]
    return torch.cat([part.flatten(1) if part.dim() == 4 else part.reshape(-1, 1) for part in parts])


def fingerprints(batches):
    """A number for each example that augmentation does not change: the brightest pixel; of text, the word."""
    return flat(batches).amax(1).mul(1000).round().int().tolist()


@every
def test_each_call_delivers_its_part(made):
    module, run = Reader(), quiet_trainer(max_epochs=1, num_sanity_val_steps=0)
    run.fit(module, datamodule=made)
    assert len(module.seen["fit"]) == len(made.plain_batches("weights"))
    assert torch.equal(flat(module.seen["validate"]), flat(made.evaluation("architecture")))
    run.test(module, datamodule=made, verbose=False)
    assert torch.equal(flat(module.seen["test"]), flat(made.evaluation("test")))
    predictions = run.predict(module, datamodule=made)
    assert torch.equal(flat(predictions), flat(made.evaluation("test")))
    if made.modality == "images":
        assert all(torch.is_tensor(batch) for batch in predictions)  # without labels, which no module predicts from


@every
def test_a_module_that_is_not_validated_trains_on_everything(made):
    module = OnEverything()
    quiet_trainer(max_epochs=1, num_sanity_val_steps=0).fit(module, datamodule=made)
    assert module.seen["validate"] == []
    assert len(module.seen["fit"]) == len(made.plain_batches("train"))
    if made.modality == "images":
        total = sum(made.sizes().values())
        assert len(module.seen["fit"]) == total // made.batch_size > len(made.plain_batches("weights"))


def test_images_without_labels_are_evaluated_without(images):
    data, module = ImageFolder(str(images), image_size=8, batch_size=4, labelled=False), Reader()
    quiet_trainer(max_epochs=1, num_sanity_val_steps=0).fit(module, datamodule=data)
    for stage in ("fit", "validate"):
        assert all(torch.is_tensor(batch) for batch in module.seen[stage])


def test_no_data_say_so():
    with pytest.raises(SettingError, match=r"^data: this needs data, NoData has none"):
        quiet_trainer(max_epochs=1, num_sanity_val_steps=0).predict(Reader(), datamodule=NoData())


RANKS = """
import json, sys
import lightning.pytorch as pl
from lightning_nas.data import ImageFolder, TextFiles
from tests.data.test_foreign_modules import OnEverything, Reader, fingerprints

images, text, out = sys.argv[1:]
for name, make in {
    "images": lambda: ImageFolder(images, image_size=8, batch_size=5),
    "text": lambda: TextFiles(text, batch_size=4, evaluation_batch_size=4),
}.items():
    seen = {}
    for module in (Reader(), OnEverything()):
        run = pl.Trainer(
            accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, num_sanity_val_steps=0, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=out,
        )
        run.fit(module, datamodule=make())
        run.test(module, datamodule=make(), verbose=False)
        run.predict(module, datamodule=make(), return_predictions=False)
        part = "train" if module.seen["validate"] == [] else "weights"
        seen[part] = module.seen.pop("fit")
        seen |= {stage: batches for stage, batches in module.seen.items() if batches}
    with open(f"{out}/{name}-{run.global_rank}.json", "w") as file:
        json.dump({stage: fingerprints(batches) for stage, batches in seen.items()}, file)
"""


@pytest.fixture(scope="module")
def of_ranks(images, text, tmp_path_factory):
    """What two ranks were given, by data and rank."""
    out = tmp_path_factory.mktemp("ranks")
    (out / "program.py").write_text(RANKS)
    done = subprocess.run(
        [sys.executable, str(out / "program.py"), str(images), str(text), str(out)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    found = {
        name: [json.loads((out / f"{name}-{r}.json").read_text()) for r in range(2)] for name in ("images", "text")
    }
    return {name: {stage: [rank[stage] for rank in ranks] for stage in ranks[0]} for name, ranks in found.items()}


@pytest.mark.slow
def test_two_ranks_together_are_given_each_image_once(of_ranks, images):
    data = ImageFolder(str(images), image_size=8)
    parts = {"weights": "weights", "train": "train", "validate": "architecture", "test": "test", "predict": "test"}
    for stage, ranks in of_ranks["images"].items():
        assert Counter(ranks[0] + ranks[1]) == Counter(fingerprints(data.evaluation(parts.pop(stage))))
        assert len(ranks[0]) == len(ranks[1])
    assert not parts


@pytest.mark.slow
def test_two_ranks_train_on_columns_of_their_own_and_evaluate_all(of_ranks, text):
    alone = TextFiles(str(text), batch_size=8, evaluation_batch_size=4)
    for stage, ranks in of_ranks["text"].items():
        if stage in ("weights", "train"):
            assert Counter(ranks[0] + ranks[1]) == Counter(fingerprints(alone.plain_batches(stage)))
        else:
            part = "architecture" if stage == "validate" else "test"
            assert ranks == [fingerprints(alone.evaluation(part))] * 2
