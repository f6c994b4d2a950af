"""Training: the textbook step, the state it moves, and the rows it yields."""

from vgexp.training.curvature import Curvature
from vgexp.training.facts import RunFacts
from vgexp.training.half import Half
from vgexp.training.pretraining import Pretraining
from vgexp.training.state import TrainState
from vgexp.training.trainer import Trainer

__all__ = ["Curvature", "Half", "Pretraining", "RunFacts", "TrainState", "Trainer"]
