"""Write a repository's address into pyproject.toml and README.md: `python .ci/stamp.py https://host/owner/name v1.0.0`.

The source names no host, so that a fork or a move makes nothing untrue: links of README.md are paths. On a package
index a path leads nowhere; the release workflow, which knows where it runs, calls this in its copy before it builds.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARK = "[project.optional-dependencies]"
PICTURES = (".svg", ".png", ".gif", ".jpg", ".webp")
_LINK = re.compile(r"(\]\(|(?:src|href)=\")(?!https?://|#|mailto:)([^)\"#\s]+)")


def stamp_readme(text: str, repository: str, ref: str) -> str:
    """The text with every path that a link or a picture names as an address within the repository, at this tag."""

    def address(found: re.Match[str]) -> str:
        kind = "raw" if found[2].lower().endswith(PICTURES) else "blob"
        return f"{found[1]}{repository}/{kind}/{ref}/{found[2]}"

    return _LINK.sub(address, text)


def stamp_pyproject(text: str, repository: str, ref: str) -> str:
    """The text with a [project.urls] table before its optional dependencies."""
    pages = {
        "Repository": repository,
        "Documentation": f"{repository}/tree/{ref}/docs",
        "Changelog": f"{repository}/blob/{ref}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
        "Security": f"{repository}/blob/{ref}/SECURITY.md",
    }
    table = "".join(f'{name} = "{page}"\n' for name, page in pages.items())
    if text.count(MARK) != 1 or "[project.urls]" in text:
        raise SystemExit(f"pyproject.toml: expected one {MARK} and no [project.urls]")
    return text.replace(MARK, f"[project.urls]\n{table}\n{MARK}")


def check_tag(text: str, ref: str) -> None:
    """A tag that is not the version of pyproject.toml would publish the wrong number."""
    version = re.search(r'^version = "(.+)"$', text, re.M)
    if version is None or ref != f"v{version[1]}":
        raise SystemExit(f"the tag {ref} is not v{version and version[1]}, the version of pyproject.toml")


def main(repository: str, ref: str) -> None:
    readme, project = ROOT / "README.md", ROOT / "pyproject.toml"
    check_tag(project.read_text("utf-8"), ref)
    project.write_text(stamp_pyproject(project.read_text("utf-8"), repository.rstrip("/"), ref), "utf-8")
    readme.write_text(stamp_readme(readme.read_text("utf-8"), repository.rstrip("/"), ref), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
