"""Two processes that train together."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The folder of the repository, which a script of its own has to put on its path."""


def run_ranks(text, folder, timeout=400):
    """Runs a script in two ranks, and fails with the end of its log if it fails."""
    script, log = folder / "two_ranks.py", folder / "log.txt"
    script.write_text(text)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script]
    with open(log, "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            status = process.wait(timeout=timeout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # both ranks: one may wait for the other forever
    assert status == 0, log.read_text()[-3000:]
