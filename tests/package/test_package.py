"""What a release needs: metadata without an invented address, links that work on an index, one form of installation."""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from vidlet.recipe import tomllib
from vidlet.wording import how_to_install

ROOT = Path(__file__).parents[2]
REPOSITORY, TAG = "https://host.example/owner/name", "v1.2.3"
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def stamp():
    spec = importlib.util.spec_from_file_location("stamp", ROOT / ".ci" / "stamp.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_a_stamped_readme_has_no_link_that_leads_nowhere_on_an_index(stamp):
    links = re.findall(r"\]\(([^)]+)\)|(?:src|href)=\"([^\"]+)\"", stamp.stamp_readme(README, REPOSITORY, TAG))
    addresses = [a or b for a, b in links]
    assert addresses
    assert all(address.startswith(("https://", "#")) for address in addresses), addresses


def test_pages_and_pictures_get_the_addresses_under_which_a_repository_has_them(stamp):
    said = stamp.stamp_readme('[a](docs/a.md#b) ![c](docs/c.svg) <img src="docs/d.webp"> [e](#e)', REPOSITORY, TAG)
    assert said == (
        f"[a]({REPOSITORY}/blob/{TAG}/docs/a.md#b) ![c]({REPOSITORY}/raw/{TAG}/docs/c.svg)"
        f' <img src="{REPOSITORY}/raw/{TAG}/docs/d.webp"> [e](#e)'
    )


def test_the_source_names_no_repository_and_a_stamped_one_names_it(stamp):
    assert "urls" not in tomllib.loads(PROJECT)["project"]
    urls = tomllib.loads(stamp.stamp_pyproject(PROJECT, REPOSITORY, TAG))["project"]["urls"]
    assert urls["Repository"] == REPOSITORY
    assert urls["Changelog"] == f"{REPOSITORY}/blob/{TAG}/CHANGELOG.md"


def test_a_tag_that_is_not_the_version_is_refused(stamp):
    version = tomllib.loads(PROJECT)["project"]["version"]
    stamp.check_tag(PROJECT, f"v{version}")
    with pytest.raises(SystemExit, match=r"v9\.9\.9"):
        stamp.check_tag(PROJECT, "v9.9.9")


def test_the_citation_is_of_this_version():
    version = tomllib.loads(PROJECT)["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_nothing_is_said_to_come_from_an_index_that_does_not_have_it():
    """While the name is not published, only a clone can be installed; wording.how_to_install is what is printed."""
    assert how_to_install() == "in a clone of vidlet, pip install ."
    assert how_to_install("train") == "in a clone of vidlet, pip install '.[train]'"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout.decode()
    files = [name for name in listed.split("\0") if name and not name.startswith("tests/")]
    if not files:
        pytest.skip("no clone: an unpacked source has no list of its files")
    wrong = re.compile(r"pip install (?:-\S+ )*['\"]?vidlet\b(?!\S)")
    for name in files:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".html", ".js", ".yml", ".ipynb", "") and path.is_file():
            assert not wrong.search(path.read_text("utf-8")), name
