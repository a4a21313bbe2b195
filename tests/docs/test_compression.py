"""The page 'A smaller network of a trained one' runs as printed."""

import re
from pathlib import Path

import pytest
import torch

PAGE = (Path(__file__).parents[2] / "docs" / "compression.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page(tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {}
    exec(block, names)
    assert names["widths"] == {
        "layer4/0/conv1": ["layer4.0.bn1", "layer4.0.conv1", "layer4.0.conv2"],
        "layer4/1/conv1": ["layer4.1.bn1", "layer4.1.conv1", "layer4.1.conv2"],
    }
    assert sum(p.numel() for p in names["small"].parameters()) <= 6e6
    assert type(names["small"]) is type(names["net"])
    assert "layer4/1/conv1" in capsys.readouterr().out
