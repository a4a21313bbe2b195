"""The page 'Search your own network' does what it says: its blocks run one after the other."""

import re
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lightning_nas import freeze
from lightning_nas.cli.own_networks import with_own_networks

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own_network.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the blocks define, run in a folder with pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    trainer = pl.Trainer
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    monkeypatch.setattr(pl, "Trainer", lambda **settings: trainer(**settings | quiet))
    rng = np.random.default_rng(0)
    for number, colour in enumerate(((200, 40, 40), (40, 40, 200))):
        folder = tmp_path / "pictures" / "train" / f"class{number}"
        folder.mkdir(parents=True)
        for k in range(64):
            pixels = np.clip(np.array(colour) + rng.normal(0, 40, (12, 12, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{k}.png")
    names = {"__name__": "own_network"}
    for block in BLOCKS:
        exec(block, names)
    return names


@pytest.mark.slow
def test_the_blocks(names):
    assert names["space"].size == 2 * 2 * 2
    four = {choice.name: choice.options for choice in names["four"].choices}
    assert four == {
        "width": ("8", "16"),
        "kernel": ("3", "5"),
        "depth": ("0", "1", "3"),
        "act": ("0", "1"),
        "reads": ("0+1", "0+2", "1+2"),
    }
    assert names["four"].size == 2 * 2 * (1 + 2 * 2) * 3  # without a block there is nothing to activate

    # the folder of pictures: twenty lines, and colours are learnt
    (program,) = (block for block in BLOCKS if "ImageFolder(" in block)
    assert len(program.strip().splitlines()) <= 20
    _, scores = names["pictures"].choose(names["data"])
    assert max(scores.values()) > 0.8  # chance: .5

    # what is frozen is the search's path
    model, search = names["model"], names["search"]
    assert type(model).__module__ == "own_network"
    assert not any(type(module).__module__.startswith("lightning_nas") for module in model.modules())
    assert model.state_dict().keys() == torch.load("net.pt", weights_only=True).keys()
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(model.eval()(x), search.network.eval()(x, search.space.gates(search.best())))
    assert isinstance(freeze(search.network, search.best(), weights=False), nn.Module)
    assert names["trainer"].callback_metrics["test/accuracy"] > 0.6  # chance: .1


def test_the_commands_name_a_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LIGHTNING_NAS_IMPORT", "")
    Path("page_package.py").write_text(BLOCKS[0].split("space = ")[0])
    (line,) = re.findall(r"fit --config darts/quickstart (.*)", PAGE)
    argv = with_own_networks(["fit", *line.replace("my_package", "page_package").split()])
    assert argv[-2:] == ["--model.space.arguments.width", "8"]
    assert "OwnSpace" in argv[2]
