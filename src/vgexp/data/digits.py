"""The handwritten digits that come with scikit-learn (Alpaydin & Kaynak 1998, test part)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from vgexp.config import DigitsConfig
from vgexp.data import sources
from vgexp.data.examples import Examples
from vgexp.tasks import Task

NUM_EXAMPLES = 1797
NUM_PIXELS = 64
SHAPE = (1, 8, 8)
NUM_CLASSES = 10


@sources.read.register
def read(_config: DigitsConfig, _seed: int) -> Examples:
    """1,797 handwritten digits of 8x8 grey pixels, bundled with scikit-learn."""
    table = _bundled_table()
    if table is None:
        table = _loaded_table()
    values = torch.from_numpy(table)
    images_NCHW = values[:, :-1].reshape(-1, *SHAPE)
    return Examples(images_NCHW, values[:, -1].long(), Task("image", SHAPE, NUM_CLASSES))


def _bundled_table() -> np.ndarray | None:
    """Pixels 0..16 and the label, a row an example; None where the file is not as expected.

    Reads the file beside scikit-learn's code, since importing `sklearn.datasets` takes 2 s.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        table = np.loadtxt(path, delimiter=",")
    except (OSError, ValueError):
        return None
    return table if table.shape == (NUM_EXAMPLES, NUM_PIXELS + 1) else None


def _loaded_table() -> np.ndarray:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return np.column_stack([pixels, labels])
