"""What the commands of README print: the demo and what is then done with its files, in a new folder.

    python benchmarks/studies/tour.py

The outputs are kept as they are printed; a page shows the first lines of each paragraph (benchmarks/tables.py). It
takes as long as `vidlet demo` does; as its model is trained anew each time, what it says moves with the machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import TRAINED, Row, add_option, figure, save

MODEL = "runs/demo/model.int8.onnx"
COMMANDS = (
    "demo --out runs/demo",
    f"predict {MODEL} runs/demo/sequence.mp4",
    f"evaluate {MODEL} runs/demo/clips",
    f"benchmark {MODEL}",
    f"inspect {MODEL}",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [Row(f"vidlet {command}", {"says": figure(says(command, folder))}, [0]) for command in COMMANDS]
    save(args, "tour", rows, (*TRAINED, "cli", "reports", "jobs"))


def says(command: str, folder: str) -> str:
    """Standard output of a command in a folder, shown as well."""
    words = [sys.executable, "-m", "vidlet.cli", *command.split()]
    told = subprocess.run(words, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout.rstrip()
    print(f"$ vidlet {command}\n{told}\n", flush=True)
    return told


if __name__ == "__main__":
    main()
