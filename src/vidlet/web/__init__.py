"""A page that runs a model in the browser: one folder for any static server, offline, nothing uploaded."""

from .page_folder import PAGE_FILES, RUNTIME, find_runtime, has_integers, write_page

__all__ = ["PAGE_FILES", "RUNTIME", "find_runtime", "has_integers", "write_page"]
