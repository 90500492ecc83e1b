"""A window that shows pictures as they come, where there is a screen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import DependencyError


class Window:
    """Opened at once; closing it ends the command as Ctrl-C does.

    Raises:
        DependencyError: Python was built without tkinter, or there is no screen.
    """

    def __init__(self, title: str) -> None:
        try:
            import tkinter
        except ImportError as error:
            raise DependencyError("--show: this Python has no tkinter; use --save, or install python3-tk") from error
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise DependencyError(f"--show: there is no screen ({error}); use --save") from error
        self._picture = tkinter.PhotoImage
        self._root.title(title)
        self._label = tkinter.Label(self._root)
        self._label.pack()
        self._closed = False
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

    def _close(self) -> None:
        self._closed = True
