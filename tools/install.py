"""Prepare the environment that `make` uses: a venv, PyTorch in the build this machine wants, then sdwidgets.

Standard library only, because nothing else is there yet. What to install stands in pyproject.toml, in which
versions in requirements.lock; this file orders the steps, says what it does, and turns usual failures into a
sentence. A step already taken is not taken again, so an interrupted installation goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"

# PyTorch's own index of CPU builds: the package index's Linux wheels carry CUDA and weigh several GB.
# Used on Linux only, and only where pip, as it is configured, offers no CPU build of the pinned version.
TORCH_CPU_INDEX = os.environ.get("TORCH_CPU_INDEX", "https://download.pytorch.org/whl/cpu")

# Free disk space that a new environment needs, in GB: measured with pip's cache of downloads, rounded up.
NEEDED_GB = {"cpu": 3, "cuda": 9}

NO_NETWORK = re.compile(
    "NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|ConnectionResetError|"
    "Temporary failure in name resolution|Network is unreachable|Connection refused|Could not fetch URL"
)
NO_SPACE = re.compile(r"No space left on device|Errno 28|Disk quota exceeded")


class InstallError(Exception):
    """A failure that one sentence explains."""


def say(text: str) -> None:
    print(f"sdwidgets: {text}", flush=True)


def run_pip(python: Path, *arguments: str) -> None:
    """Run pip, showing what it writes. Raises InstallError with the cause where its messages tell it."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, errors="replace")
    messages = []
    for line in process.stderr:
        messages.append(line)
        sys.stderr.write(line)
        sys.stderr.flush()
    if process.wait() == 0:
        return
    text = "".join(messages)
    if NO_SPACE.search(text):
        raise InstallError(
            "the disk is full: that of the environment, of pip's cache or of the temporary folder (TMPDIR). "
            "Free some space, then run the same command again; it goes on where it stopped."
        )
    if NO_NETWORK.search(text):
        raise InstallError(
            "the packages could not be fetched: no network. The first use needs one, later ones do not. "
            "Check the connection (behind a proxy, set HTTPS_PROXY), then run the same command again; "
            "what was downloaded is kept."
        )
    raise InstallError("pip failed; its own message stands above. Then run the same command again.")


def locked_version(name: str) -> str:
    """The version of `name` in requirements.lock."""
    match = re.search(rf"^{re.escape(name)}==([^\s;]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise InstallError(f"{LOCK.name} has no line for {name}; restore it: git checkout {LOCK.name}.")
    return match[1]


def check_space(folder: Path, build: str) -> None:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if free < NEEDED_GB[build]:
        raise InstallError(
            f"only {free:.1f} GB are free for {folder}; the environment, with PyTorch's {build} build, needs "
            f"about {NEEDED_GB[build]} GB. Free some space, or put it on another disk: "
            "make install VENV=/path/with/space."
        )


def make_venv(venv: Path) -> Path:
    """The Python of `venv`, which is made where it is missing and made anew where it does not run."""
    python = venv / "bin" / "python"
    has_pip = [python, "-m", "pip", "--version"]
    if python.exists() and subprocess.run(has_pip, capture_output=True).returncode == 0:
        return python
    say(f"making {venv.name} with Python {platform.python_version()} ...")
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", venv], capture_output=True, text=True)
    if made.returncode:
        detail = (made.stdout + made.stderr).strip()
        if NO_SPACE.search(detail):
            raise InstallError(f"the disk of {venv} is full. Free some space, then run the command again.")
        raise InstallError(f"Python's venv module could not make {venv}: {detail}")
    return python


def installed_torch(python: Path) -> str | None:
    """The version of PyTorch in the environment, for example 2.13.0+cpu; read without importing it."""
    code = "from importlib.metadata import version; print(version('torch'))"
    answer = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return answer.stdout.strip() if answer.returncode == 0 else None


def offers(python: Path, version: str) -> bool:
    """Whether pip, as this machine configures it, offers this very version of torch, local part included."""
    command = [str(python), "-m", "pip", "--retries", "1", "index", "versions", "torch"]
    listed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout
    return re.search(rf"[\s,]{re.escape(version)}(,|\s|$)", listed) is not None


def install_torch(python: Path, build: str) -> None:
    pinned = locked_version("torch")
    installed = installed_torch(python)
    if platform.system() != "Linux":
        wanted, requirement = pinned, f"torch=={pinned}"  # one build only: Metal on a Mac, CPU on Windows
    elif build == "cpu":
        wanted, requirement = f"{pinned}+cpu", f"torch=={pinned}+cpu"
    else:
        # Where a CPU build is offered too, pip would prefer it.
        wanted, requirement = pinned, f"torch=={pinned},!={pinned}+cpu"
    if installed == wanted:
        return

    source = []
    if wanted.endswith("+cpu") and not offers(python, wanted):
        source = ["--index-url", TORCH_CPU_INDEX]
    size = {"cpu": "about 200 MB", "cuda": "about 3 GB with the CUDA libraries"}[build]
    say(f"installing PyTorch {pinned}, {build} build ({size}) ...")
    # Alone, because its index does not hold the other packages; they come with sdwidgets, in the next step.
    run_pip(python, "install", "--no-deps", "--no-compile", *source, requirement)


def install_sdwidgets(python: Path, extras: str) -> None:
    say(f"installing sdwidgets[{extras}] and what it needs, in the versions of {LOCK.name} ...")
    constraint = ("--constraint", str(LOCK))
    run_pip(python, "install", "--quiet", "--no-compile", *constraint, "hatchling", "editables")
    editable = ("--no-build-isolation", "--editable", f".[{extras}]")
    run_pip(python, "install", "--no-compile", *constraint, *editable)


def compile_modules(python: Path) -> None:
    """Byte-compile what was installed, on all cores: pip does it on one.

    Left to the first import, it makes the first start three times as long, and every start where Python is told to write no byte code.
    """
    say("compiling what was installed, so that every start is quick ...")
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    folder = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    # Some packages carry templates that are no Python, and what is not compiled here is at its first import: no failure of any kind.
    subprocess.run([python, "-m", "compileall", "-qq", "-j", "0", folder, ROOT / "sdwidgets"], capture_output=True)


def install(venv: Path, build: str, extras: str) -> None:
    """Bring `venv` up to date. Raises InstallError."""
    if build not in NEEDED_GB:
        raise InstallError(f"TORCH={build} is unknown; allowed are TORCH=cpu and TORCH=cuda.")
    if build == "cuda" and platform.system() != "Linux":
        raise InstallError(f"PyTorch has no CUDA build for {platform.system()}; leave TORCH away.")
    python = venv / "bin" / "python"
    if not python.exists() or installed_torch(python) is None:
        check_space(venv, build)
    python = make_venv(venv)
    install_torch(python, build)
    install_sdwidgets(python, extras)
    compile_modules(python)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder of the environment")
    parser.add_argument("--torch", default="cpu", help="build of PyTorch: cpu or cuda")
    parser.add_argument("--extras", default="course", help="extras of pyproject.toml, separated by commas")
    arguments = parser.parse_args()
    try:
        install(arguments.venv.absolute(), arguments.torch, arguments.extras)
    except InstallError as error:
        print(f"\nsdwidgets: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsdwidgets: stopped. Run the same command again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
