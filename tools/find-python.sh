#!/bin/sh
# Print the Python that shall make the environment: 3.10 or newer, with the venv module.
# Usage: sh tools/find-python.sh [PYTHON]     With an argument, only that one is tried.
found_old=
found_bare=
for python in ${1:-python3.13 python3.12 python3.11 python3.10 python3 python}; do
    # A name on PATH may still be a shim for a Python that is not there, so ask it. Python 2 must be able to read this, too.
    answer=$("$python" -c '
import sys
if sys.version_info < (3, 10):
    print("old %d.%d" % sys.version_info[:2])
else:
    try:
        import ensurepip, venv
        print("good")
    except ImportError:
        print("bare %d.%d" % sys.version_info[:2])
' 2>/dev/null) || continue
    case $answer in
        good) command -v "$python"; exit 0 ;;
        old*) found_old="$found_old $python (${answer#old })" ;;
        bare*) found_bare=${found_bare:-"$python (${answer#bare })"} ;;
    esac
done

if [ -n "$found_bare" ]; then
    version=${found_bare##*\(}
    echo "$found_bare has no venv module. On Debian and Ubuntu: apt install python${version%\)}-venv. Then run the same command again." >&2
elif [ -n "$found_old" ]; then
    echo "sdwidgets needs Python 3.10 or newer; found only:$found_old. Install one (python.org, Homebrew or your system's packages), then run the same command again, or name it: make install PYTHON=/path/to/python3." >&2
elif [ -n "$1" ]; then
    echo "PYTHON=$1 does not run. Name a Python 3.10 or newer, for example make install PYTHON=python3.12." >&2
else
    echo "sdwidgets needs Python 3.10 or newer, and found no Python on PATH. Install one (python.org, Homebrew or your system's packages), then run the same command again, or name it: make install PYTHON=/path/to/python3." >&2
fi
exit 1
