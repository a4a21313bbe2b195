"""A run's folder: its name, and the names of what lies in it."""

import contextlib
import itertools
import os
from pathlib import Path

RUN_FOLDER = "LIGHTNING_NAS_RUN_FOLDER"
"""The environment variable by which the first process of a run tells those that it starts where the folder is."""


USER_PACKAGES = "LIGHTNING_NAS_IMPORT"
"""The environment variable with the packages that ``--import`` named, separated by spaces. Processes that a run
starts import them too, and a printed next command names them."""


CHECKPOINT = "last.ckpt"
"""The name of the checkpoint from which a run continues."""


class RunFolder:
    """The files of one run.

    Args:
        path: the path of the folder.

    Attributes:
        path: the path of the folder.
        checkpoints: the folder of checkpoints.
        checkpoint: the checkpoint from which the run continues.
        architecture: the file of the architecture that was found, or is retrained.
        drawing: the picture of that architecture.
        architectures: a row per epoch with what the search would have returned.
        weights: the weight of every option in every epoch, where the method weighs options.
        pictures: the folder of pictures made during the search.
        trials: the log of a search of many trials.
        front: the folder of the architectures that a search of several objectives found.
        states: the folder of the states from which trials are continued.
        metrics: the figures of every epoch.
        random: the best of the random architectures that the search was compared with.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.checkpoint = self.checkpoints / CHECKPOINT
        self.architecture = self.path / "architecture.json"
        self.drawing = self.path / "architecture.svg"
        self.architectures = self.path / "architectures.csv"
        self.weights = self.path / "weights.csv"
        self.pictures = self.path / "pictures"
        self.trials = self.path / "trials.jsonl"
        self.front = self.path / "front"
        self.states = self.path / "states"
        self.metrics = self.path / "metrics.csv"
        self.random = self.path / "random.json"

    @classmethod
    def of_checkpoint(cls, checkpoint: str | Path) -> "RunFolder":
        """The run that a checkpoint lies in."""
        return cls(Path(checkpoint).parent.parent)

    def discard_empty(self) -> None:
        """Removes the folder if nothing is in it."""
        with contextlib.suppress(OSError):
            self.path.rmdir()

    @classmethod
    def new(cls, root: Path, name: str) -> "RunFolder":
        """Makes the first free of ``root/name-1``, ``root/name-2``, …; all processes of one run get the same."""
        if RUN_FOLDER in os.environ:
            return cls(os.environ[RUN_FOLDER])
        root.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = root / f"{name}-{number}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            break
        os.environ[RUN_FOLDER] = str(folder)
        return cls(folder)
