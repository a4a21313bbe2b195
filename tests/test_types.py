"""A user's program passes a strict type checker, which sees the types of the public names, and runs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_nas.testing.method import quiet_trainer
from tests.helpers.typed import program

# Silent: a user's checker reports on the user's files, not on the package, which it finds among the installed ones;
# here it lies beside the tests and would be reported on as well.
STRICT = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent"]
PATH = Path(program.__file__)


def test_a_users_program_runs(tmp_path):
    def trainer(**settings):
        return quiet_trainer(**settings, limit_train_batches=2, limit_val_batches=0, default_root_dir=tmp_path)

    logits, names, score = program.main(trainer)
    assert torch.cat(logits).shape == (360, 10)
    assert len(names) == len(program.DARTSCell(nodes=2).choices)
    assert 0 < score <= 1


@pytest.mark.slow  # twenty seconds, all in the checker
def test_a_strict_type_checker_passes_a_users_program():
    checked = subprocess.run([*STRICT, str(PATH)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.slow
def test_a_strict_type_checker_finds_what_is_wrong(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from lightning_nas import DARTSCell, Digits\n\nDARTSCell(nodes='two')\nDigits().batch_sise\n")
    checked = subprocess.run([*STRICT, str(wrong)], capture_output=True, text=True)
    assert [line.rpartition("[")[2] for line in checked.stdout.splitlines()[:-1]] == ["arg-type]", "attr-defined]"]
