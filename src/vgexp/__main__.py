"""`python -m vgexp` is `vgexp`."""

from __future__ import annotations

import sys

from vgexp.cli.main import entry

sys.exit(entry())
