"""Where trials leave the states from which others continue, and when these go."""

import shutil
import tempfile
from pathlib import Path

from lightning_nas.strategies.base import Trial


class States:
    """A folder of states, ``<number>.ckpt``. One goes when the trial that continued it is on file, all when the search
    has ended. None has to be there: an evaluator does without at the cost of more time.

    Args:
        path: the path of the folder, which is made by whoever leaves a state; None: a temporary one.
        keep: whether states stay when they are needed no more.
    """

    def __init__(self, path: Path | None, keep: bool) -> None:
        self.keep = keep
        self._temporary = None
        if path is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="lightning_nas-")
            path = Path(self._temporary.name)
        self.path = path.resolve()  # workers may be elsewhere

    def take_over(self, folder: Path) -> None:
        """Copies the states of a search that is continued from another folder."""
        if folder.is_dir() and folder.resolve() != self.path:
            shutil.copytree(folder, self.path, dirs_exist_ok=True)

    def on_file(self, trial: Trial) -> None:
        """Takes note of a trial that has ended: what it continued is needed no more."""
        if trial.continues is not None and trial.done and not self.keep:
            (self.path / f"{trial.continues}.ckpt").unlink(missing_ok=True)

    def close(self, ended: bool) -> None:
        """Gives the folder up.

        Args:
            ended: whether the search has ended, so that nothing will be continued.
        """
        if self._temporary is not None:
            self._temporary.cleanup()
        elif ended and not self.keep:
            shutil.rmtree(self.path, ignore_errors=True)
