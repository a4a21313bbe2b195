"""Python's own documentation as text. It changes with Python's version, so no exact counts."""

import sys
from types import ModuleType

import pytest

from lightning_nas.data import PyDocs


@pytest.fixture
def topics(monkeypatch):
    """In place of Python's: eleven paragraphs that are different, one of them under two topics."""
    module = ModuleType("pydoc_data.topics")
    texts = {"b": "\n\n".join(f"Word{k} isn't *here*." for k in range(8)) + "\n", "a": 'The "for"\nstatement\n****\n'}
    texts["c"] = "The for\n   statement\n\n+-----+\n\nLast (but one):\n\n\nlast; x_1\n"
    module.topics = texts
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", module)
    return texts


def test_lines_are_paragraphs_of_words_and_punctuation_each_once(topics):
    data = PyDocs(batch_size=1)
    lines = [" ".join(line) for split in ("train", "valid", "test") for line in data.lines(split)]
    words = [f"word{k} isn't here ." for k in range(8)]
    assert lines == ["the for statement", *words, "last ( but one ) :", "last ; x_1"]
    assert [len(data.lines(split)) for split in ("train", "valid", "test")] == [9, 1, 1]


def test_the_embedded_text_is_prose_in_three_parts_that_share_no_paragraph():
    data = PyDocs()
    splits = {split: data.lines(split) for split in ("train", "valid", "test")}
    sizes = {split: sum(len(line) + 1 for line in lines) for split, lines in splits.items()}
    total = sum(sizes.values())
    assert 40_000 < total < 200_000
    assert 0.7 < sizes["train"] / total < 0.9
    assert min(sizes.values()) > 0.05 * total
    paragraphs = {split: {tuple(line) for line in lines} for split, lines in splits.items()}
    assert len(set.union(*paragraphs.values())) == sum(map(len, paragraphs.values())) == sum(map(len, splits.values()))
    assert {"the", "statement", "."} <= data.vocabulary.keys()
    assert all(word == word.lower() for word in data.vocabulary)


def test_rare_words_are_unknown_so_that_a_model_learns_about_them():
    data = PyDocs()
    assert data.inputs["vocabulary"] == 2000
    unknown = {p: (data.tokens(p) == data.vocabulary["<unk>"]).float().mean() for p in ("weights", "architecture")}
    assert 0 < unknown["weights"] < unknown["architecture"] < 0.15
    everything = PyDocs(max_vocabulary=None)
    assert everything.inputs["vocabulary"] > 2000
    assert not (everything.tokens("weights") == everything.vocabulary["<unk>"]).any()


def test_streams_and_evaluation_run_on_the_defaults():
    data = PyDocs()
    tokens, targets, first = data.stream("weights", 0).get(0)
    assert tokens.shape == targets.shape == (len(first), 16)
    assert (
        sum(targets.numel() for _, targets, _ in data.val_dataloader())
        == (len(data.tokens("architecture")) // 10 - 1) * 10
    )
