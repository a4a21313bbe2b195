"""A user's own text: where it is found, what becomes of its words, and what is refused."""

import warnings

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
    assert not data.has_test
    with pytest.raises(
        SettingError, match=rf"^test: there is no file {folder}/test\.txt; put it there, or set test to"
    ):
        data.test_dataloader()


def test_whether_there_is_a_test_text_is_known_at_a_glance(folder):
    assert TextFiles(str(folder)).has_test
    assert TextFiles(str(folder), test=str(folder / "valid.txt")).has_test
    assert not TextFiles(str(folder), test="other.txt").has_test
    assert not TextFiles(str(folder / "nowhere")).has_test


@pytest.mark.parametrize("called", ["valid.txt", "val.txt", "validation.txt"])
def test_the_text_to_validate_on_has_one_of_three_names(folder, called):
    (folder / "valid.txt").rename(folder / called)
    data = TextFiles(str(folder))
    data.prepare_data()
    assert data.paths["valid"] == folder / called
    assert data.tokens("architecture").tolist() == [5, 7, 2, 3]
    assert data.spec["init_args"]["valid"] == "valid.txt"


UNREAD = {
    "two": (
        {"val.txt"},
        "valid: {} has valid.txt and val.txt, .*; set valid to val.txt, or to use valid.txt remove val.txt$",
    ),
    "two others": (
        {"-valid.txt", "val.txt", "validation.txt"},
        "valid: {} has val.txt and validation.txt, .*; set valid to val.txt or validation.txt$",
    ),
    "dev": (
        {"-valid.txt", "dev.txt"},
        "valid: there is no file {}/valid.txt, and dev.txt is not read; set valid to dev",
    ),
    "Valid": ({"-valid.txt", "Valid.txt"}, "valid: there is no file {}/valid.txt, and Valid.txt is not read"),
    "training": (
        {"-train.txt", "training.txt"},
        "train: there is no .*, and training.txt is not read; set train to tr",
    ),
    "testing": (
        {"-test.txt", "testing.txt"},
        "test: there is no .*, and testing.txt is not read; set test to testing.txt",
    ),
}


@pytest.mark.parametrize(("changes", "message"), UNREAD.values(), ids=UNREAD)
def test_a_file_that_could_be_the_missing_one_is_never_passed_over(folder, changes, message):
    for name in changes:
        if name.startswith("-"):
            (folder / name[1:]).unlink()
        else:
            (folder / name).write_text("the cat\n")
    with pytest.raises(SettingError, match=f"^{message.format(folder, folder)}"):
        TextFiles(str(folder)).prepare_data()


@pytest.mark.parametrize(
    ("other", "settings", "read"),
    [
        ("dev.txt", {}, "valid.txt"),
        ("Train.txt", {}, "train.txt"),
        ("dev.txt", {"test": "dev.txt"}, None),  # it is read
        ("dev.txt", {"valid": "test.txt"}, None),  # what is read was said
        ("notes.txt", {}, None),
        ("dev.csv", {}, None),
    ],
)
def test_a_file_that_looks_like_one_that_is_there_is_named_in_a_warning(folder, other, settings, read):
    (folder / other).write_text("the cat\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TextFiles(str(folder), **settings).prepare_data()
    assert [str(warning.message) for warning in caught] == (
        [f"{other} in {folder} is not read, but {read}"] if read else []
    )


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_missing_file_is_named_before_any_is_read(folder, split):
    (folder / f"{split}.txt").unlink()
    with pytest.raises(SettingError, match=rf"^{split}: there is no file {folder}/{split}\.txt; put it there, "):
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
