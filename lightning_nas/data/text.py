"""Text for language models: columns that are read side by side, window by window.

A text is one long row of tokens. It is divided into as many equal columns as a batch has, one after the other in the
text, and a batch is a window of all columns. A network reads a window with the hidden state that it left the window
before with, its carry; gradients end at the window's edge (truncated backpropagation through time).
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lightning_nas.data.base import DataModule, Stream
from lightning_nas.errors import SettingError
from lightning_nas.seeding import derive_seed

END_OF_LINE, UNKNOWN = "<eos>", "<unk>"


class Window(NamedTuple):
    """A batch: T tokens of N columns of a text.

    Attributes:
        tokens: the words that are read, as numbers, ``(T, N)``.
        targets: ``(T, N)``, the tokens one further in the text.
        first: ``(T,)``, true at the first token of a pass alone: there a carry starts from zeros.
    """

    tokens: Tensor
    targets: Tensor
    first: Tensor


SPLITS = {"weights": "train", "architecture": "valid", "train": "train", "test": "test"}
"""Which text a part is."""


def read_lines(path: Path) -> Iterator[list[str]]:
    """The words of each line of a file, divided by white space.

    Raises:
        SettingError: if the file is not there, is not text in UTF-8 or has no words.
    """
    empty = True
    try:
        with open(path, encoding="utf-8-sig") as file:
            for line in file:
                if "\0" in line:
                    raise SettingError(f"data: {path} is not text, it has zero bytes")
                words = line.split()
                empty = empty and not words
                yield words
    except UnicodeDecodeError as error:
        raise SettingError(f"data: {path} is not text in UTF-8 ({error.reason})") from error
    except OSError as error:
        raise SettingError(f"data: {path} cannot be read ({error.strerror})") from error
    if empty:
        raise SettingError(f"data: {path} has no words")


def columns(tokens: Tensor, batch_size: int, rank: int = 0, world_size: int = 1) -> Tensor:
    """This rank's columns of a text, ``(L, batch_size)``; the columns of all ranks follow each other in the text.

    The few tokens that are left at the end of the text are left out.
    """
    length = len(tokens) // (batch_size * world_size)
    rows = tokens[: length * batch_size * world_size].view(-1, length)
    return rows[rank * batch_size : (rank + 1) * batch_size].t().contiguous()


def equal_cuts(length: int, bptt: int) -> list[int]:
    """Where windows of ``bptt`` tokens begin, and the end; the last window may be shorter."""
    return [*range(0, length, bptt), length]


def varied_cuts(length: int, bptt: int, seed: int) -> list[int]:
    """Where windows of random lengths begin, and the end (Merity, Keskar, Socher 2018, section 4.1, and released code).

    A window's length is normal around ``bptt``, or with probability .05 around half of it, with a deviation of 5. It is
    at least 5, and at most 20 above ``bptt`` (released code of DARTS). All are then scaled, by a per cent or so in a
    long text, such that as many windows as are expected fill the text, the same number for every seed.
    """
    count = max(1, round(length / (0.975 * bptt)))
    generator = torch.Generator().manual_seed(seed)
    centres = torch.where(torch.rand(count, generator=generator) < 0.05, bptt / 2, bptt).double()
    lengths = torch.normal(centres, 5.0, generator=generator).clamp(5, bptt + 20)
    beyond_one = (lengths - 1).cumsum(0)  # what is scaled, so that every window keeps a token
    ends = torch.arange(1, count + 1) + (beyond_one * ((length - count) / beyond_one[-1])).round().long()
    return [0, *ends.tolist()]


class Windows(Dataset):
    """A pass over columns ``(L, N)``, in windows that begin and end at ``cuts``."""

    def __init__(self, columns: Tensor, cuts: Sequence[int]) -> None:
        self.columns, self.cuts = columns, cuts

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def __getitem__(self, number: int) -> Window:
        begin, end = self.cuts[number], self.cuts[number + 1]
        first = torch.arange(begin, end) == 0
        # copies: a worker hands over the memory behind a tensor, which for a slice is the whole text
        tokens, targets = self.columns[begin:end].clone(), self.columns[begin + 1 : end + 1].clone()
        return Window(tokens, targets, first)


class TextStream:
    """Passes over columns, one after the other; each has the same number of windows.

    Args:
        columns: the text in columns, words as numbers, ``(L, N)``.
        bptt: tokens of a window.
        seed: the seed of the windows' lengths, which are drawn again in every pass; None: all are ``bptt``.
    """

    def __init__(self, columns: Tensor, bptt: int, seed: int | None = None) -> None:
        self.columns, self.bptt, self.seed = columns, bptt, seed
        self._pass, self._windows = 0, self._cut(0)

    def _cut(self, number: int) -> Windows:
        length = len(self.columns) - 1  # the last token is a target only
        if self.seed is None:
            return Windows(self.columns, equal_cuts(length, self.bptt))
        return Windows(self.columns, varied_cuts(length, self.bptt, derive_seed(self.seed, "pass", number)))

    def __len__(self) -> int:
        return len(self._windows)

    def get(self, index: int) -> Window:
        number, window = divmod(index, len(self))
        if number != self._pass:
            self._pass, self._windows = number, self._cut(number)
        return self._windows[window]


class TextData(DataModule):
    """Language modelling. A subclass gives the :meth:`lines` of its texts.

    The weights part is the training text and the architecture part the validation text. ``train`` is the training text
    too: published language models are never trained on the validation text. The training text is read in windows of
    random length, by which the learning rate is scaled. All else is read in windows of ``bptt``.

    Batches are :class:`Window`; every stream has its own ``first``, and needs its own carry.

    Args:
        batch_size: the number of columns on each device.
        evaluation_batch_size: columns in evaluation. Every rank evaluates them all.
        bptt: tokens of a window.
        variable_bptt: windows of the training text have random lengths around ``bptt``.
        max_vocabulary: the most frequent words of the training text that are kept, ``<eos>`` and ``<unk>`` among them;
            None: all.
    """

    modality = "text"
    adjustable = frozenset({"evaluation_batch_size"})

    def __init__(
        self,
        batch_size: int,
        evaluation_batch_size: int,
        bptt: int,
        variable_bptt: bool,
        max_vocabulary: int | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers=0)  # a batch is two slices
        if evaluation_batch_size < 1:
            raise SettingError(f"evaluation_batch_size: at least 1, got {evaluation_batch_size}")
        if bptt < 2:
            raise SettingError(f"bptt: at least 2, got {bptt}")
        if max_vocabulary is not None and max_vocabulary < 3:
            raise SettingError(f"max_vocabulary: at least 3, {END_OF_LINE}, {UNKNOWN} and a word; got {max_vocabulary}")
        self.evaluation_batch_size = evaluation_batch_size
        self.bptt = bptt
        self.variable_bptt = variable_bptt
        self.max_vocabulary = max_vocabulary
        self._tokens: dict[str, Tensor] = {}

    def lines(self, split: str) -> Iterable[list[str]]:
        """The words of each line of a text, ``train``, ``valid`` or ``test``; ``<eos>`` is put behind each."""
        raise NotImplementedError

    @cached_property
    def _counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for line in self.lines("train"):
            counts.update(line)
            counts[END_OF_LINE] += 1
        return counts

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """The number of each word of the training text, in the order in which they first occur.

        ``<unk>`` stands for all other words; it is the last, unless it is in the text.
        """
        words = list(dict.fromkeys([*self._counts, UNKNOWN]))
        if self.max_vocabulary is not None:
            frequent = [word for word, _ in self._counts.most_common() if word not in (END_OF_LINE, UNKNOWN)]
            kept = {END_OF_LINE, UNKNOWN, *frequent[: self.max_vocabulary - 2]}
            words = [word for word in words if word in kept]
        return {word: number for number, word in enumerate(words)}

    @cached_property
    def inputs(self) -> dict[str, int]:  # type: ignore[override]
        return {"vocabulary": len(self.vocabulary), "bptt": self.bptt}

    def tokens(self, part: str) -> Tensor:
        """The text of a part as numbers of its words, ``(n,)``."""
        if part not in SPLITS:
            raise ValueError(f"there is no part {part!r}; there are {', '.join(SPLITS)}")
        split = SPLITS[part]
        if split not in self._tokens:
            vocabulary, numbers = self.vocabulary, array("q")
            unknown = vocabulary[UNKNOWN]
            for line in self.lines(split):
                numbers.extend(vocabulary.get(word, unknown) for word in (*line, END_OF_LINE))
            self._tokens[split] = torch.tensor(numbers, dtype=torch.long)
            self._warn_of_unknown(split)
        return self._tokens[split]

    def _warn_of_unknown(self, split: str) -> None:
        if split == "train" or UNKNOWN in self._counts or len(self._counts) >= len(self.vocabulary):
            return  # it is trained: it is in the training text, or stands there for words that were not kept
        tokens = self._tokens[split]
        if count := int((tokens == self.vocabulary[UNKNOWN]).sum()):
            rank_zero_warn(
                f"{count} of the {len(tokens)} tokens of the {split} text are words that the training text does not "
                f"have. They become {UNKNOWN}, which is never trained, and spoil the loss; let a max_vocabulary below "
                f"{len(self.vocabulary)} or the training text itself put {UNKNOWN} for rare words"
            )

    def sizes(self) -> dict[str, int]:
        return {f"{SPLITS[part]} tokens": len(self.tokens(part)) for part in ("weights", "architecture")}

    def _columns(self, part: str, field: str, rank: int = 0, world_size: int = 1) -> Tensor:
        tokens, batch_size = self.tokens(part), getattr(self, field)
        if batch_size > (most := len(tokens) // (2 * world_size)):
            where = f" on each of {world_size} devices" if world_size > 1 else ""
            smaller = f"set it to at most {most}" if most else "use fewer devices"
            raise SettingError(
                f"{field}: {batch_size} columns{where} are too many for the {len(tokens)} tokens of the "
                f"{SPLITS[part]} text, since each needs two; {smaller}, or take a longer text"
            )
        return columns(tokens, batch_size, rank, world_size)

    def _training_columns(self, part: str) -> Tensor:
        found = self._columns(part, "batch_size", *self._ranks)
        if self.bptt > (length := len(found) - 1):  # in an evaluation the windows' length changes nothing
            rank_zero_warn(
                f"bptt {self.bptt} is more than the {length} tokens that are read of a column of the {SPLITS[part]} "
                f"text, so that a pass is one window of {length}; for longer ones lower batch_size, now "
                f"{self.batch_size}, or take a longer text"
            )
        return found

    def stream(self, part: str, seed: int, views: int = 1, labelled: bool = True) -> Stream:
        """Passes over a part; this rank reads columns of its own. A text has one view, and its labels are its words."""
        self.refuse_views(views, labelled)
        varies = self.variable_bptt and SPLITS.get(part) == "train"
        return TextStream(self._training_columns(part), self.bptt, derive_seed(seed, part) if varies else None)

    def evaluation(self, part: str, n_batches: int | None = None, views: int = 1, labelled: bool = True) -> DataLoader:
        """One pass over a part in windows of ``bptt``; or its first ``n_batches`` windows, which follow each other."""
        self.refuse_views(views, labelled)
        return self._in_order(self._columns(part, "evaluation_batch_size"), n_batches)

    def plain_batches(self, part: str = "weights") -> DataLoader:
        """One pass over the training text in windows of ``bptt``: a module without a schedule scales no rates."""
        return self._in_order(self._training_columns(part))

    def _in_order(self, columns: Tensor, n_batches: int | None = None) -> DataLoader:
        cuts = equal_cuts(len(columns) - 1, self.bptt)
        windows = Windows(columns, cuts if n_batches is None else cuts[: n_batches + 1])
        # Lightning leaves a distributed sampler as it is; any other it would let deal out windows to the ranks
        sampler: DistributedSampler = DistributedSampler(windows, num_replicas=1, rank=0, shuffle=False)
        return DataLoader(windows, batch_size=None, sampler=sampler)
