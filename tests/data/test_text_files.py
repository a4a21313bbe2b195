"""A user's own text: where it is found, what becomes of its words, and what is refused."""

import pytest

from lightning_nas.data import DataModule, TextFiles
from lightning_nas.errors import SettingError

TEXTS = {"train": "The cat sat\non the mat\n", "valid": "the Dog sat\n", "test": "The the\n\n"}


@pytest.fixture
def folder(tmp_path):
    for split, text in TEXTS.items():
        (tmp_path / f"{split}.txt").write_text(text, encoding="utf-8")
    return tmp_path


def test_the_files_of_a_folder_are_read(folder):
    data = TextFiles(str(folder))
    data.prepare_data()
    assert list(data.vocabulary) == ["The", "cat", "sat", "<eos>", "on", "the", "mat", "<unk>"]
    assert data.inputs["vocabulary"] == 8
    assert data.tokens("weights").tolist() == [0, 1, 2, 3, 4, 5, 6, 3]
    assert data.tokens("architecture").tolist() == [5, 7, 2, 3]
    assert data.tokens("test").tolist() == [0, 5, 3, 3]


def test_words_are_lower_cased_on_request(folder):
    data = TextFiles(str(folder), lower=True, max_vocabulary=5)
    assert list(data.vocabulary) == ["the", "cat", "sat", "<eos>", "<unk>"]
    assert data.tokens("weights").tolist() == [0, 1, 2, 3, 4, 0, 4, 3]


def test_files_may_have_any_name_in_any_place(folder):
    (folder / "elsewhere").mkdir()
    (folder / "train.txt").rename(folder / "elsewhere" / "corpus.en")
    for train in ("elsewhere/corpus.en", str(folder / "elsewhere" / "corpus.en")):
        data = TextFiles(str(folder), train=train, test="valid.txt")
        data.prepare_data()
        assert len(data.tokens("weights")) == 8
        assert data.tokens("test").tolist() == data.tokens("architecture").tolist()


def test_only_testing_needs_a_test_file(folder):
    (folder / "test.txt").unlink()
    data = TextFiles(str(folder), evaluation_batch_size=1)
    data.prepare_data()
    assert len(list(data.val_dataloader())) == 1
    with pytest.raises(SettingError, match=rf"^data: {folder}/test\.txt cannot be read"):
        data.test_dataloader()


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_missing_file_is_named_before_any_is_read(folder, split):
    (folder / f"{split}.txt").unlink()
    with pytest.raises(SettingError, match=rf"^{split}: there is no file {folder}/{split}\.txt$"):
        TextFiles(str(folder)).prepare_data()


def test_an_empty_or_binary_file_is_refused(folder):
    (folder / "train.txt").write_bytes(b"")
    with pytest.raises(SettingError, match=r"train\.txt has no words$"):
        _ = TextFiles(str(folder)).inputs
    (folder / "train.txt").write_bytes(b"\x80\x81")
    with pytest.raises(SettingError, match=r"train\.txt is not text in UTF-8"):
        _ = TextFiles(str(folder)).inputs


def test_it_is_rebuilt_from_its_spec(folder):
    data = TextFiles(str(folder), lower=True, bptt=7)
    again = DataModule.build(data.spec)
    assert isinstance(again, TextFiles)
    assert (again.bptt, again.lower, again.paths) == (7, True, data.paths)
