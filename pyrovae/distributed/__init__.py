"""Several processes that train one program, on torch.distributed."""

from .agreement import agree as agree
from .agreement import check_in_step as check_in_step
from .meeting import is_first as is_first
from .meeting import joined as joined
from .meeting import launched as launched
from .slicing import Split as Split
from .world import Elsewhere as Elsewhere
from .world import RankLost as RankLost
from .world import World as World
