"""Every error that is the user's to mend, as one tree.

    VidletError             one clear line: what, where, why; the command line turns it into exit status 2
    ├── DataError           a clip, a table, a folder or a record that cannot be read or makes no sense
    ├── RecipeError         a recipe file or option with an unknown key, a wrong type or an impossible value
    ├── ModelError          a model file that is truncated, foreign, hostile or of another version
    ├── WeightsError        pretrained weights that are missing, damaged or of another network
    ├── TrainingError       a loss that is not finite, a run folder that does not fit its data
    ├── ExportError         a model that this format cannot hold, or an option that it does not know
    └── DependencyError     a command that needs an extra that is not installed

Whatever is not a ``VidletError`` is our own mistake (exit status 1), ``ParityError`` included: an exported file
that differs from the trained model is never written.
"""

import contextlib
import os
from collections.abc import Iterator


class VidletError(Exception):
    """Base of all errors whose cause the user can mend."""


class DataError(VidletError):
    """A clip, a table or a folder cannot be read, or contradicts itself."""


class RecipeError(VidletError):
    """A recipe or an option is not valid; names the key and the nearest valid one."""


class ModelError(VidletError):
    """A model file cannot be trusted or understood."""


class WeightsError(VidletError):
    """Pretrained weights are missing, damaged or belong to another network."""


class TrainingError(VidletError):
    """Training cannot go on: a loss that is not finite, or a run that does not fit."""


class ExportError(VidletError):
    """The model cannot be written in the format asked for."""


class DependencyError(VidletError):
    """An optional part of vidlet is needed and not installed."""


class ParityError(Exception):
    """An exported file does not give the scores of the model it was made from. Our mistake, so not a VidletError."""


@contextlib.contextmanager
def reading(where: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Whatever a library raises while it reads a file becomes one DataError that names the file: "a: not WHAT (why)".

    The one boundary of every reader: no odd file ends more than itself. What is a VidletError already stays as it is.
    """
    try:
        yield
    except VidletError:
        raise
    except Exception as error:
        raise DataError(f"{where}: not {what} ({why(error, where)})") from error


def why(error: BaseException, where: str | os.PathLike[str] = "") -> str:
    """What an error says, in one line of at most 160 letters without the name of the file, else its kind."""
    strerror = getattr(error, "strerror", None)
    said = str(strerror).lower() if isinstance(error, OSError) and strerror else str(error)
    name = os.fspath(where)
    said = " ".join((said.replace(repr(name), "").replace(name, "") if name else said).split())[:160].strip(" :,")
    return said or type(error).__name__
