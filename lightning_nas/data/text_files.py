"""A user's own text."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lightning_nas.data.base import VALIDATION, find_split
from lightning_nas.data.text import TextData, read_lines
from lightning_nas.errors import SettingError

ACCEPTED = {
    "train": ("train.txt",),
    "valid": ("valid.txt", *(f"{name}.txt" for name in VALIDATION if name != "valid")),
    "test": ("test.txt",),
}
"""The names that are looked for where none is given; the first is the default's."""


class TextFiles(TextData):
    """Three files in UTF-8, one each to train, to validate and to test. White space divides words.

    Every line ends with ``<eos>``, an empty one too. Words that the training text does not have become ``<unk>``. Only
    testing reads the test file. A file that looks like one of the three and is not read (``Train.txt``, ``dev.txt``) is
    an error where it could be the missing one, else a warning.

    Args:
        folder: the folder that holds the files.
        train, valid, test: their paths in the folder, or anywhere. Where there is no ``valid.txt``, the default is
            ``val.txt`` or ``validation.txt``.
        lower: whether all words are put in lower case.
        max_vocabulary: the most frequent words of the training text that are kept, ``<eos>`` and ``<unk>`` among them;
            None: all.
        batch_size: the number of columns on each device.
        evaluation_batch_size: columns in evaluation. Every rank evaluates them all.
        bptt: tokens of a window.
        variable_bptt: windows of the training text have random lengths around ``bptt``.
    """

    adjustable = TextData.adjustable | {"folder", "train", "valid", "test"}

    def __init__(
        self,
        folder: str = ".",
        train: str = "train.txt",
        valid: str = "valid.txt",
        test: str = "test.txt",
        lower: bool = False,
        max_vocabulary: int | None = None,
        batch_size: int = 64,
        evaluation_batch_size: int = 10,
        bptt: int = 35,
        variable_bptt: bool = True,
    ) -> None:
        super().__init__(batch_size, evaluation_batch_size, bptt, variable_bptt, max_vocabulary)
        self.folder = Path(folder).expanduser().absolute()
        self.names = {"train": train, "valid": valid, "test": test}
        self.lower = lower

    @cached_property
    def paths(self) -> dict[str, Path]:
        """The file of each text, whether it is there or not."""
        files = {path.name for path in self.folder.iterdir() if path.is_file()} if self.folder.is_dir() else set()
        return {split: self.folder / self._name(split, files) for split in self.names}

    def _name(self, split: str, files: set[str]) -> str:
        name, accepted = self.names[split], ACCEPTED[split]
        if name != accepted[0]:
            return name
        given = {other for key, other in self.names.items() if key != split}
        found, alike = find_split("val" if split == "valid" else split, accepted, files - given)
        if len(found) > 1:
            others = " or ".join(other for other in found if other != name)
            raise SettingError(
                f"{split}: {self.folder} has {' and '.join(found)}, and one file alone can be validated on; "
                f"set {split} to {others}" + (f", or to use {name} remove {others}" if name in found else "")
            )
        if not found and alike:
            raise SettingError(
                f"{split}: there is no file {self.folder / name}, and {', '.join(alike)} is not read; set {split} to "
                f"{' or '.join(alike)}, or move it elsewhere"
            )
        if alike:
            rank_zero_warn(f"{', '.join(alike)} in {self.folder} is not read, but {found[0]}")
        return found[0] if found else name

    @property
    def has_test(self) -> bool:
        return (self.folder / self.names["test"]).is_file()

    def prepare_data(self) -> None:
        for split in ("train", "valid"):  # before a long text is read
            self._existing(split)

    def _existing(self, split: str) -> Path:
        path = self.paths[split]
        if not path.is_file():
            raise SettingError(f"{split}: there is no file {path}; put it there, or set {split} to the one to read")
        return path

    def lines(self, split: str) -> Iterator[list[str]]:
        for line in read_lines(self._existing(split)):
            yield [word.lower() for word in line] if self.lower else line
