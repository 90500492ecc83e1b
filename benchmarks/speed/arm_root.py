"""A folder with Debian's arm64 Python, vidlet and its aarch64 wheels: the ARM runtime, emulated, on any machine.

    apt-get install qemu-user-static                # the emulator; the folder itself needs no root rights
    python benchmarks/speed/arm_root.py ROOT              # on Debian: its apt, and pip, do the work (about 300 MB)
    VIDLET_ARM_ROOT=ROOT python -m pytest -m slow tests/runtime/test_arm.py
    qemu-aarch64-static -L ROOT ROOT/usr/bin/python3 -c 'import vidlet; ...'        # by hand

Says whether instructions of ARM give the same scores. Nothing about speed: an emulated second is no second.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

PYTHON = ("python3-minimal", "libpython3-stdlib", "libstdc++6")  # Debian's; wheels bring everything else
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
# What the kernel of a Cortex-A76 says (Raspberry Pi 5); onnxruntime looks here, and qemu has only the host's x86.
CPUINFO = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", metavar="ROOT", type=Path, help="a new folder")
    root = parser.parse_args().root.resolve()
    if root.exists():
        raise SystemExit(f"{root} is there already: remove it first")
    unpack_debian(root)
    install_wheels(root)
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text(CPUINFO)
    shutil.rmtree(root / "apt")
    print(f"{root}: {(root / 'usr/bin/python3').readlink()}, {', '.join(wheels_of(root))}")


def unpack_debian(root: Path) -> None:
    """Fetch Python for arm64 with all it needs, by an apt that knows only this folder, and unpack it."""
    apt = root / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()  # nothing is installed: so everything that is needed comes
    own = ["Dir::State=" + str(apt), f"Dir::State::status={apt / 'status'}", f"Dir::Cache={apt}"]
    own += ["APT::Architecture=arm64", "APT::Architectures=arm64", "Debug::NoLocking=1"]
    own += ["APT::Install-Recommends=0", "APT::Sandbox::User="]
    words = [word for option in own for word in ("-o", option)]
    subprocess.run(["apt-get", "-q", *words, "update"], check=True)
    subprocess.run(["apt-get", "-q", "-y", *words, "--download-only", "install", *PYTHON], check=True)
    for package in sorted((apt / "archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, root], check=True)
        package.unlink()


def install_wheels(root: Path) -> None:
    """Vidlet, and what it needs to run, as pyproject.toml says, only as wheels."""
    project = Path(__file__).parents[2]
    text = (project / "pyproject.toml").read_text("utf-8")
    listed = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert listed is not None
    wanted = re.findall(r'"([^"]+)"', listed[1])
    version = str((root / "usr/bin/python3").readlink()).removeprefix("python")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--target", str(packages_of(root))]
    words = [word for platform in PLATFORMS for word in ("--platform", platform)]
    words += ["--python-version", version, "--only-binary=:all:"]
    subprocess.run([*install, *words, *wanted], check=True)
    subprocess.run([*install, "--no-deps", str(project)], check=True)


def packages_of(root: Path) -> Path:
    """Where Debian's Python looks."""
    return root / "usr/lib/python3/dist-packages"


def wheels_of(root: Path) -> list[str]:
    """Names and versions of what was installed."""
    return sorted(path.stem.replace("-", " ") for path in packages_of(root).glob("*.dist-info"))


if __name__ == "__main__":
    main()
