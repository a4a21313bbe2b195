"""Text that comes with Python: real prose without a download."""

import re
from functools import cached_property

from lightning_nas.data.text import TextData

WORDS = re.compile(r"\w+(?:['’]\w+)*|[.,;:!?()]")


class PyDocs(TextData):
    """Python's reference on its topics, what ``help("for")`` shows (``pydoc_data.topics``): about 65,000 tokens.

    A line is a paragraph, in lower case, of words and the punctuation ``.,;:!?()``. Many paragraphs are found under
    several topics; they are taken once, so that nothing that a model is tested on was trained on. By the order of
    topics the first 80 % of paragraphs are to train, the next 10 % to validate, the last to test. The text changes with
    Python's version, so losses are comparable under the same version only.

    Args:
        max_vocabulary: the most frequent words of the training text that are kept, ``<eos>`` and ``<unk>`` among them;
            None: all, with which ``<unk>`` is never trained.
        batch_size: the number of columns on each device.
        evaluation_batch_size: columns in evaluation. Every rank evaluates them all.
        bptt: tokens of a window.
        variable_bptt: windows of the training text have random lengths around ``bptt``.
    """

    def __init__(
        self,
        max_vocabulary: int | None = 2000,
        batch_size: int = 16,
        evaluation_batch_size: int = 10,
        bptt: int = 35,
        variable_bptt: bool = True,
    ) -> None:
        super().__init__(batch_size, evaluation_batch_size, bptt, variable_bptt, max_vocabulary)

    @cached_property
    def _paragraphs(self) -> list[tuple[str, ...]]:
        from pydoc_data.topics import topics

        texts = (text.lower() for _, text in sorted(topics.items()))
        paragraphs = (tuple(WORDS.findall(paragraph)) for text in texts for paragraph in re.split(r"\n\s*\n", text))
        return list(dict.fromkeys(paragraph for paragraph in paragraphs if paragraph))

    def lines(self, split: str) -> list[list[str]]:
        tenth = len(self._paragraphs) / 10
        begin, end = {"train": (0, 8), "valid": (8, 9), "test": (9, 10)}[split]
        return [list(paragraph) for paragraph in self._paragraphs[round(begin * tenth) : round(end * tenth)]]
