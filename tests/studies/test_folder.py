"""The folder of a study: its name, what lies in it, and whom it refuses."""

import datetime
import json
import math
import re
from pathlib import Path

import pytest
import yaml

import lightning_nas
from lightning_nas import __version__
from lightning_nas.errors import SettingError
from lightning_nas.studies.folder import StudyFolder, read_config

SETTINGS = {
    "a": {"b": [1, {"c": True}], "d": math.nan},
    "e": "ü: text",
    "day": datetime.date(2020, 1, 2),
    "f": (1e-5, 2),
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def opened(settings, path=None, study="random", subject="darts"):
    return StudyFolder.open(path, study, subject, settings, ("*.csv",))


def test_a_folder_is_made_once_and_found_again():
    folder = opened(SETTINGS)
    assert not folder.path.exists()
    folder.make()
    noted = yaml.safe_load((folder.path / "settings.yaml").read_text(encoding="utf-8"))
    assert list(noted) == ["study", *SETTINGS, "version"]
    assert noted["e"] == "ü: text"
    assert (noted["day"], noted["f"], noted["version"]) == ("2020-01-02", [1e-5, 2], __version__)
    before = (folder.path / "settings.yaml").read_bytes()
    again = opened(dict(reversed(SETTINGS.items())))  # in another order they say the same
    again.make()
    assert again.path == folder.path
    assert (folder.path / "settings.yaml").read_bytes() == before
    assert [path.name for path in Path("runs").iterdir()] == [folder.path.name]


NAMES = [("random", "darts", r"study-random-darts-[0-9a-f]{8}"), ("search", "", r"study-search-[0-9a-f]{8}")]


@pytest.mark.parametrize(("study", "subject", "name"), NAMES)
def test_the_name_of_a_default_folder(study, subject, name):
    path = opened({"a": 1}, study=study, subject=subject).path
    assert path.parent == Path("runs")
    assert re.fullmatch(name, path.name)
    assert opened({"a": 2}, study=study, subject=subject).path != path


DIFFERENCES = {
    "a number": ({"a": 1, "b": 2}, {"a": 1, "b": 3}, "b is 2 there and 3 here"),
    "the first of two": ({"a": 1, "b": 2}, {"b": 3, "a": 2}, "b is 2 there and 3 here"),
    "inside": ({"a": {"b": {"c": "x"}}}, {"a": {"b": {"c": "y"}}}, "a.b.c is 'x' there and 'y' here"),
    "in a list": ({"a": [1, 2]}, {"a": [1, 3]}, "a[1] is 2 there and 3 here"),
    "a longer list": ({"a": [1]}, {"a": [1, 3]}, "a[1] is not set there and 3 here"),
    "one more": ({"a": 1}, {"a": 1, "b": None}, "b is not set there and None here"),
    "one less": ({"a": 1, "b": None}, {"a": 1}, "b is None there and not set here"),
    "another kind": ({"a": {"b": 1}}, {"a": 1}, "a is {'b': 1} there and 1 here"),
    "true is not 1": ({"a": 1}, {"a": True}, "a is 1 there and True here"),
    "lines in a text": ({"a": "x"}, {"a": "x\ny"}, r"a is 'x' there and 'x\ny' here"),
    "a long text": ({"a": 1}, {"a": "x" * 99}, f"a is 1 there and '{'x' * 59}… here"),
}


@pytest.mark.parametrize(("there", "here", "said"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_the_first_setting_that_differs_is_named(there, here, said):
    opened(there, Path("study")).make()
    before = Path("study/settings.yaml").read_bytes()
    with pytest.raises(SettingError) as caught:
        opened(here, Path("study"))
    assert str(caught.value) == f"--folder: study holds another study: {said}; choose another --folder"
    assert Path("study/settings.yaml").read_bytes() == before


def test_another_study_and_another_version_are_refused(monkeypatch):
    opened({"a": 1}, Path("study")).make()
    with pytest.raises(SettingError, match="study is 'random' there and 'search' here"):
        opened({"a": 1}, Path("study"), study="search")
    monkeypatch.setattr(lightning_nas, "__version__", "9")
    with pytest.raises(SettingError, match=f"version is '{__version__}' there and '9' here"):
        opened({"a": 1}, Path("study"))


def test_a_folder_with_other_files_is_taken_but_not_one_with_results():
    Path("study").mkdir()
    Path("study/notes.txt").touch()
    opened({"a": 1}, Path("study")).make()
    Path("study/settings.yaml").unlink()
    Path("study/rows.csv").touch()
    with pytest.raises(SettingError, match=r"--folder: study holds rows.csv and no settings.yaml"):
        opened({"a": 1}, Path("study"))


@pytest.mark.parametrize("content", ["a: [", "- 1", "", "a\x00"])
def test_a_settings_file_that_is_none_is_refused(content):
    Path("study").mkdir()
    Path("study/settings.yaml").write_text(content)
    with pytest.raises(SettingError) as caught:
        opened({"a": 1}, Path("study"))
    assert "study" in str(caught.value)
    assert "choose another" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("path", ["a_file", "a_file/study"])
def test_a_file_is_no_folder(path):
    Path("a_file").touch()
    with pytest.raises(SettingError, match="--folder: a_file is no folder that can be written to"):
        opened({"a": 1}, Path(path))


def test_a_folder_that_is_taken_meanwhile_is_refused():
    ours = opened({"a": 1}, Path("study"))
    opened({"a": 2}, Path("study")).make()
    with pytest.raises(SettingError, match="a is 2 there and 1 here"):
        ours.make()


# -- what a configuration says ---------------------------------------------------------------------------------------


def test_a_configuration_is_read_with_the_files_that_it_names():
    Path("configs").mkdir()
    Path("configs/search.yaml").write_text("model: model.yaml\ndata: [found.json, {path: none.yaml}]\nseed: 1 # !\n")
    Path("configs/model.yaml").write_text("lr: 0.1\nouter: search.yaml\n")
    Path("found.json").write_text(json.dumps({"a": 1}, indent="\t"))
    model = {"lr": 0.1, "outer": "search.yaml"}  # a file that is being read is not read again
    assert read_config("configs/search.yaml") == {"model": model, "data": [{"a": 1}, {"path": "none.yaml"}], "seed": 1}
    Path("found.json").write_text("{")
    assert read_config("configs/search.yaml")["data"][0] == "found.json"


@pytest.mark.parametrize("content", [b"a: [1\nb: }", b"\xff\xfe\xfa"])
def test_a_configuration_that_cannot_be_read_is_named_in_one_line(content):
    Path("search.yaml").write_bytes(content)
    with pytest.raises(SettingError, match=r"^search.yaml: cannot be read, so mend it or choose another \("):
        read_config("search.yaml")
