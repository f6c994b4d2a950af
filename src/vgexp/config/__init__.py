"""The configuration: one dataclass for each choice of a group.

Hydra composes these; below the command line they are plain objects, and each dataclass checks its
ranges when it is made. Every public name of the modules below is a name of this package.
"""

# The order of these lines is the order of groups and choices in `vgexp list` and in help.
# ruff: noqa: F403, I001
from vgexp.config.model import *
from vgexp.config.convolution import *
from vgexp.config.recurrence import *
from vgexp.config.attention import *
from vgexp.config.data import *
from vgexp.config.images import *
from vgexp.config.sequences import *
from vgexp.config.user_code import *
from vgexp.config.optimization import *
from vgexp.config.run import *
from vgexp.config.groups import *
from vgexp.config.tree import *
