#!/bin/sh
# Print the Python that shall make the environment: 3.10 or newer, with the venv module.
# Usage: sh tools/find-python.sh [PYTHON]     With an argument, only that one is tried.
# The active python3 comes first; one newer than the tested 3.13 is taken only where there is no other.
found_old=
found_bare=
found_newer=
for python in ${1:-python3 python3.13 python3.12 python3.11 python3.10 python}; do
    # A name on PATH may be a shim for a Python that is not there, so ask it; Python 2 must be able to read this, too.
    answer=$("$python" -c '
import sys
version = "%d.%d" % sys.version_info[:2]
if sys.version_info < (3, 10):
    print("old " + version)
else:
    try:
        import ensurepip, venv
        print("good " + version if sys.version_info < (3, 14) else "newer " + version)
    except ImportError:
        print("bare " + version)
' 2>/dev/null) || continue
    case $answer in
        good*) command -v "$python"; exit 0 ;;
        newer*) found_newer=${found_newer:-$(command -v "$python")} ;;
        old*) found_old="$found_old $python (${answer#old })" ;;
        bare*) found_bare=${found_bare:-${answer#bare }} ;;
    esac
done

again="then run the same command again, or name it: make install PYTHON=/path/to/python3."
if [ -n "$found_newer" ]; then
    echo "$found_newer"
    exit 0
elif [ -n "$found_bare" ]; then
    echo "sdwidgets: Python $found_bare is here, but without its venv module. On Debian and Ubuntu: apt install python$found_bare-venv; elsewhere install Python from python.org. Then run the same command again." >&2
elif [ -n "$found_old" ]; then
    echo "sdwidgets: Python 3.10 or newer is needed; found only:$found_old. Install one (python.org, Homebrew or your system's packages), $again" >&2
elif [ -n "$1" ]; then
    echo "sdwidgets: PYTHON=$1 does not run. Name a Python 3.10 or newer, for example make install PYTHON=python3.12." >&2
else
    echo "sdwidgets: Python 3.10 or newer is needed, and there is no Python on PATH. Install one (python.org, Homebrew or your system's packages), $again" >&2
fi
exit 1
