"""The page of results says what the files say; what the pages link to and name is there."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

from lightning_nas.files import find_config, packaged_configs

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("make_results", ROOT / "docs" / "make_results.py")
make_results = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_results)

PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
PAGES = ["README.md", *(f"docs/{page}.md" for page in ("backbones", "commands", "own_project", "results"))]
PAGES += ["CONTRIBUTING.md", "docs/compression.md", "lightning_nas/README.md"]
FILES = sorted((ROOT / "results").glob("*.csv"))


def test_the_page_is_up_to_date():
    assert make_results.filled(PAGE) == PAGE, "run python docs/make_results.py"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_changed_figure_changes_the_page(path, tmp_path):
    shutil.copytree(ROOT / "results", tmp_path / "results")
    lines = path.read_text(encoding="utf-8").splitlines()
    (tmp_path / "results" / path.name).write_text("\n".join([*lines[:-1], lines[-1] + "9"]), encoding="utf-8")
    assert make_results.filled(PAGE, tmp_path / "results") != PAGE


def test_the_readme_can_be_read_in_one_go():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8")):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md", "docs/results.md"])
def test_configurations_that_are_named_are_packaged(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    lists = ",".join(re.findall(r"--others '\[([^\]]*)\]'", text)).split(",")
    named = re.findall(r"--(?:config|search|retrain) ([\w/.]+)", text) + [name.strip() for name in lists if name]
    papers = {name.partition("/")[0] for name in packaged_configs()}
    named += [name for name in re.findall(r"`([a-z0-9_]+/[a-z0-9_.]+)`", text) if name.partition("/")[0] in papers]
    assert named
    for name in named:
        if name != "my_search.yaml":
            find_config(name)
