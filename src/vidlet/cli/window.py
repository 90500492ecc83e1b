"""A window that shows pictures as they come, where there is a screen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import DependencyError


class Window:
    """Opened at once; closing it ends the command as Ctrl-C does.

    Args:
        instead: what to do without a screen, for the error.
        option: what asked for the window.

    Raises:
        DependencyError: Python was built without tkinter, or there is no screen.
    """

    def __init__(self, title: str, instead: str = "--save", option: str = "--show") -> None:
        try:
            import tkinter
        except ImportError as error:
            raise DependencyError(
                f"{option}: this Python has no tkinter; use {instead}, or install python3-tk"
            ) from error
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise DependencyError(f"{option}: there is no screen ({error}); use {instead}") from error
        self._picture = tkinter.PhotoImage
        self._root.title(title)
        self._label = tkinter.Label(self._root)
        self._label.pack()
        self._closed = False
        self._keys: list[str] = []
        self._root.bind("<Key>", lambda event: self._keys.append(event.keysym))
        self._root.protocol("WM_DELETE_WINDOW", self._close)

    def show(self, rgb: NDArray[np.uint8]) -> None:
        """Show a picture (H, W, 3).

        Raises:
            KeyboardInterrupt: the window was closed.
        """
        height, width = rgb.shape[:2]
        data = b"P6 %d %d 255\n" % (width, height) + np.ascontiguousarray(rgb).tobytes()
        picture = self._picture(data=data, format="PPM")
        self._label.configure(image=picture)
        self._shown = picture  # tkinter forgets what nobody holds
        self._root.update()
        if self._closed:
            raise KeyboardInterrupt

    def pressed(self) -> list[str]:
        """The keys that were pressed since the last call, by tkinter's names: "space", "1", "Escape"."""
        keys, self._keys = self._keys, []
        return keys

    def _close(self) -> None:
        self._closed = True
