"""The page of results says what the files say."""

import importlib.util
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("make_results", ROOT / "docs" / "make_results.py")
make_results = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_results)

PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
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


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md", "docs/results.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page):
    import re

    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8")):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target
