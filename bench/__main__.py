"""`python -m bench`: see cpu.py."""

import sys

from bench.cpu import main

sys.exit(main())
