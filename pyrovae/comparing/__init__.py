"""Programs x objectives x seeds compared on the same data: `pv.compare`, and the grid behind the command."""

from .cell import Cell as Cell
from .cell import CellResult as CellResult
from .cell import Pair as Pair
from .comparison import Compared as Compared
from .comparison import Comparison as Comparison
from .driver import Outcome as Outcome
from .driver import run_plan as run_plan
from .entry import Difference as Difference
from .entry import Entry as Entry
from .entry import difference as difference
from .plan import Plan as Plan
from .plan import make_plan as make_plan
from .rendering import markdown as markdown
from .rendering import rich_table as rich_table
from .running import folder_of as folder_of
from .running import stands as stands
from .seeds import OverSeeds as OverSeeds
from .seeds import over_seeds as over_seeds
from .table import Table as Table
from .table import comparison_table as comparison_table
from .table import runs_table as runs_table
from .workers import Failure as Failure
from .workers import cores as cores
from .workers import run_side_by_side as run_side_by_side
