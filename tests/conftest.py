"""Every test runs on one thread, so that its numbers do not depend on the machine's cores."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
