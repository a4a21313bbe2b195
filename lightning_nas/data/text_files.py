"""A user's own text."""

from collections.abc import Iterator
from pathlib import Path

from lightning_nas.data.text import TextData, read_lines
from lightning_nas.errors import SettingError


class TextFiles(TextData):
    """Three files in UTF-8, one each to train, to validate and to test. White space divides words.

    Every line ends with ``<eos>``, an empty one too. Words that the training text does not have become ``<unk>``. Only
    testing reads the test file.

    Args:
        folder: the folder that holds the files.
        train, valid, test: their paths in the folder, or anywhere.
        lower: whether all words are put in lower case.
        max_vocabulary: the most frequent words of the training text that are kept, ``<eos>`` and ``<unk>`` among them;
            None: all.
        batch_size: the number of columns on each device.
        evaluation_batch_size: columns in evaluation. Every rank evaluates them all.
        bptt: tokens of a window.
        variable_bptt: windows of the training text have random lengths around ``bptt``.
    """

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
        place = Path(folder).expanduser().absolute()
        self.paths = {"train": place / train, "valid": place / valid, "test": place / test}
        self.lower = lower

    def prepare_data(self) -> None:
        for split in ("train", "valid"):  # before a long text is read
            if not self.paths[split].is_file():
                raise SettingError(f"{split}: there is no file {self.paths[split]}")

    def lines(self, split: str) -> Iterator[list[str]]:
        for line in read_lines(self.paths[split]):
            yield [word.lower() for word in line] if self.lower else line
