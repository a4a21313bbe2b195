"""The README's Python runs as printed."""

import re
from pathlib import Path

import lightning.pytorch as pl
import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = pl.Trainer
    monkeypatch.setattr(
        pl, "Trainer", lambda **settings: trainer(**settings | {"fast_dev_run": 1, "accelerator": "cpu"})
    )
    exec(block, {})
