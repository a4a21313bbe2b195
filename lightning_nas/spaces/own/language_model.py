"""Language models of a user's own, between their ``forward`` and how tasks and data of text call networks."""

import inspect
from typing import Any

from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.spaces.recurrent.language_model import LanguageOutput


class WindowReader:
    """How a user's network reads a window of a text.

    Its ``forward`` gets numbers of words ``(T, N)``: T words of each of N columns. It puts out logits of the word that
    follows each, ``(T, N, vocabulary)``. One with a second argument called ``carry`` reads on from the window before,
    and puts out ``logits, carry``: a tensor, or a tuple, list or dict of tensors, such as the ``(h, c)`` of an
    ``nn.LSTM``. Where a text begins its carry is None; gradients end at the window's edge. A network that puts out a
    ``LanguageOutput`` tells its hidden states too, which the task then regularises.

    Args:
        net: the module as the user wrote it.
        vocabulary: the number of words, by which logits are checked; None: it is not known.
    """

    def __init__(self, net: nn.Module, vocabulary: int | None) -> None:
        self.name, self.vocabulary = type(net).__name__, vocabulary
        self.carries = "carry" in inspect.signature(net.forward).parameters

    def arguments(self, carry: Any = None, first: Tensor | None = None) -> dict[str, Any]:
        """What the network's ``forward`` is called with beside the words.

        Args:
            carry: what it put out after the window before; None: a text begins.
            first: ``(T,)``, whether a text begins at a word. It can at the first alone.
        """
        if not self.carries:
            return {}
        begins = carry is None or (first is not None and bool(first[0]))
        return {"carry": None if begins else carry}

    def output(self, tokens: Tensor, out: Any) -> LanguageOutput:
        """What the network put out, as tasks read it.

        Args:
            tokens: the words that it read, ``(T, N)``.
            out: what its ``forward`` returned.

        Raises:
            SettingError: if that is not what a language model of its kind puts out, or no checkpoint could hold it.
        """
        if not isinstance(out, LanguageOutput):
            pair = self.carries and isinstance(out, (tuple, list)) and len(out) == 2
            logits, carry = out if pair else (out, None)
            if not isinstance(logits, Tensor) or pair != self.carries:
                wanted = (
                    "logits and the next carry" if self.carries else "logits; forward(tokens, carry) a pair of them"
                )
                raise SettingError(f"network: {self.name}.forward returns {wanted}, got {_kind(out)}")
            out = LanguageOutput(logits, carry, None, None)
        shape = (*tokens.shape, out.logits.shape[-1] if self.vocabulary is None else self.vocabulary)
        if tuple(out.logits.shape) != shape:
            got = tuple(out.logits.shape)
            raise SettingError(f"network: logits of {self.name} are (T, N, vocabulary), here {shape}, got {got}")
        if not _plain(out.carry):
            raise SettingError(
                f"network: the carry of {self.name} is kept in checkpoints; a tensor, or a tuple, list or dict of "
                f"tensors, got {_kind(out.carry)}"
            )
        return out


def _plain(carry: Any) -> bool:
    """Whether a checkpoint can hold it."""
    if type(carry) in (tuple, list):
        return all(map(_plain, carry))
    if type(carry) is dict:
        return all(type(name) in (str, int) for name in carry) and all(map(_plain, carry.values()))
    return carry is None or isinstance(carry, Tensor)


def _kind(thing: Any) -> str:
    inside = f" of {len(thing)}" if isinstance(thing, (tuple, list)) else ""
    return f"{type(thing).__name__}{inside}"
