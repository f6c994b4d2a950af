from vgexp import report as report
from vgexp import theory as theory
from vgexp.diagnosis import diagnose as diagnose
from vgexp.guests import Probe as Probe
from vgexp.guests import check as check
from vgexp.runs import Run as Run
from vgexp.runs import load as load
from vgexp.runs import resume as resume
from vgexp.runs import run as run

__version__: str
__all__: list[str]
