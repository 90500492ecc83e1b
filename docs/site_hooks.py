"""What the site of the documents needs beside them: see mkdocs.yml.

The pages are written for a reader of the repository, where `../CONTRIBUTING.md` or `../src/vidlet/recipe.py` lead
somewhere. In the site such a path is shown as text, or, where `repo_url` is configured, leads to the file there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CHANGES = "CHANGELOG.md"
_LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+)([^)#]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The page with links that leave docs/ replaced; the page of changes is the file at the root."""
    if page.file.src_uri == "changelog.md":
        markdown = (ROOT / CHANGES).read_text("utf-8").replace("](docs/", "](")
    depth = page.file.src_uri.count("/")

    def shown(found: re.Match[str]) -> str:
        text, up, path, _ = found.groups()
        if up.count("../") <= depth:
            return found[0]  # a page of another folder of docs/
        if not (ROOT / path).exists():
            raise SystemExit(f"{page.file.src_uri}: {up}{path} is not there")
        repository = config.get("repo_url")
        return f"[{text}]({repository.rstrip('/')}/blob/main/{path})" if repository else text

    return _LINK.sub(shown, markdown)
