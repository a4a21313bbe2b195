"""Penn Treebank: found or downloaded, refused where its sizes are others, and the published counts on the real text."""

import io
import os
from hashlib import md5
from pathlib import Path
from urllib.error import URLError

import pytest

from lightning_nas.data import PennTreebank, penn_treebank
from lightning_nas.errors import SettingError

NAMES = ["ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"]
TEXTS = [" a b <unk> \n c \n", " a c \n", " b d \n"]


def write(place):
    place.mkdir(parents=True, exist_ok=True)
    for name, text in zip(NAMES, TEXTS, strict=True):
        (place / name).write_text(text)


@pytest.fixture
def published(monkeypatch):
    """From here on the small texts are the published ones."""
    monkeypatch.setattr(penn_treebank, "N_TOKENS", {"train": 6, "valid": 3, "test": 3})
    monkeypatch.setattr(penn_treebank, "N_VOCABULARY", 5)
    checksums = {name: md5(text.encode()).hexdigest() for name, text in zip(NAMES, TEXTS, strict=True)}
    monkeypatch.setattr(penn_treebank, "MD5", checksums)


@pytest.fixture
def mirror(monkeypatch):
    """What the mirror has, by name; an exception is raised instead."""
    content = dict(zip(NAMES, (text.encode() for text in TEXTS), strict=True))
    content["asked"] = []

    def urlopen(url, timeout):
        name = url.removeprefix(penn_treebank.MIRROR)
        content["asked"].append(name)
        if isinstance(content[name], Exception):
            raise content[name]
        return io.BytesIO(content[name])

    monkeypatch.setattr(penn_treebank, "urlopen", urlopen)
    return content


@pytest.mark.parametrize("below", ["", "ptb"])
def test_the_files_are_found_in_the_folder_or_in_ptb(tmp_path, published, mirror, below):
    write(tmp_path / below)
    data = PennTreebank(str(tmp_path))
    data.prepare_data()
    assert mirror["asked"] == []
    assert list(data.vocabulary) == ["a", "b", "<unk>", "<eos>", "c"]
    assert data.tokens("weights").tolist() == [0, 1, 2, 3, 4, 3]
    assert data.tokens("architecture").tolist() == [0, 4, 3]
    assert data.tokens("test").tolist() == [1, 2, 3]


def test_the_folder_is_the_one_given_else_that_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("LIGHTNING_NAS_DATA", raising=False)
    assert PennTreebank().folder == Path("data")
    monkeypatch.setenv("LIGHTNING_NAS_DATA", str(tmp_path))
    assert PennTreebank().folder == tmp_path
    assert PennTreebank("elsewhere").folder == Path("elsewhere")
    assert PennTreebank().spec["init_args"]["folder"] is None


def test_what_is_not_there_is_downloaded(tmp_path, published, mirror):
    data = PennTreebank(str(tmp_path / "data"))
    data.prepare_data()
    assert mirror["asked"] == NAMES
    assert [(tmp_path / "data" / "ptb" / name).read_text() for name in NAMES] == TEXTS
    assert data.inputs["vocabulary"] == 5
    (tmp_path / "data" / "ptb" / NAMES[1]).unlink()
    PennTreebank(str(tmp_path / "data")).prepare_data()
    assert mirror["asked"] == [*NAMES, NAMES[1]]


@pytest.mark.parametrize("answer", [URLError("no network"), b"<html>Please log in</html>"])
def test_a_failed_download_says_what_to_put_where(tmp_path, published, mirror, answer):
    mirror[NAMES[0]] = answer
    with pytest.raises(SettingError) as caught:
        PennTreebank(str(tmp_path / "data")).prepare_data()
    message = str(caught.value)
    assert message.startswith(f"folder: {', '.join(NAMES)} not in {tmp_path / 'data' / 'ptb'}, and they could not")
    assert ("no network" if isinstance(answer, Exception) else "is not the published text") in message
    assert "Put the files there; they are Mikolov's Penn Treebank" in message
    assert "\n" not in message
    assert not list(tmp_path.iterdir())


def test_without_download_nothing_is_asked(tmp_path, mirror):
    write(tmp_path)
    (tmp_path / NAMES[2]).unlink()
    with pytest.raises(SettingError, match=rf"^folder: ptb\.test\.txt not in {tmp_path}, and download is false\. Put "):
        PennTreebank(str(tmp_path), download=False).prepare_data()
    assert mirror["asked"] == []


def test_no_published_file_is_put_beside_a_text_of_the_user(tmp_path, published, mirror):
    write(tmp_path)
    (tmp_path / NAMES[2]).unlink()
    with pytest.raises(
        SettingError, match=rf"^folder: ptb\.test\.txt not in {tmp_path}, and the published ones are not "
    ):
        PennTreebank(str(tmp_path), verify=False).prepare_data()
    assert mirror["asked"] == []
    PennTreebank(str(tmp_path)).prepare_data()
    assert mirror["asked"] == [NAMES[2]]


def test_a_text_of_another_size_is_refused_unless_it_is_asked_for(tmp_path, published):
    write(tmp_path)
    (tmp_path / NAMES[1]).write_text("a c c\n")
    with pytest.raises(SettingError, match=r"ptb\.valid\.txt has 4 tokens, the published text 3\. .* verify"):
        PennTreebank(str(tmp_path)).tokens("architecture")
    assert len(PennTreebank(str(tmp_path), verify=False).tokens("architecture")) == 4


def test_a_text_with_another_vocabulary_is_refused_however_often_it_is_asked(tmp_path, published):
    write(tmp_path)
    (tmp_path / NAMES[0]).write_text("a b <unk>\na\n")
    data = PennTreebank(str(tmp_path))
    for _ in range(2):
        with pytest.raises(SettingError, match=r"ptb\.train\.txt has 4 different words, the published text 5\."):
            _ = data.inputs
    assert PennTreebank(str(tmp_path), verify=False).inputs["vocabulary"] == 4


def test_the_real_text_has_the_published_counts():
    place = Path(os.environ.get("LIGHTNING_NAS_DATA", "data"), "ptb")
    if not all((place / name).is_file() for name in NAMES):
        pytest.skip("set LIGHTNING_NAS_DATA to a folder that has Penn Treebank in ptb/")
    data = PennTreebank(batch_size=64)
    data.prepare_data()
    assert data.inputs["vocabulary"] == 10_000
    assert [len(data.tokens(part)) for part in ("train", "architecture", "test")] == [929_589, 73_760, 82_430]
    words = list(data.vocabulary)
    first = [words[number] for number in data.tokens("weights")[24:33].tolist()]
    assert first == ["<eos>", "pierre", "<unk>", "N", "years", "old", "will", "join", "the"]
    assert len(data.stream("weights", 0)) == 426
    assert sum(targets.numel() for _, targets, _ in data.evaluation("test")) == 82_420
