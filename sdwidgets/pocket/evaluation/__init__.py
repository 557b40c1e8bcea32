"""How well does Pocket draw what the prompt says? Prompts, checks, intervals and tiers; judges do the reading.

`asking` holds every prompt and what a right picture shows, `tiers` what is to be reached, `drawing` goes from
prompts to readings, `sections` measures, and `report` writes it all into one file. Only the last three need torch.
"""

from .asking import ATTRIBUTES, ROWS
from .background import background_colour, background_prompts, background_rate
from .rates import Rate
from .tiers import BARS, TIERS, row_tier, tier_of

__all__ = [
    "ATTRIBUTES",
    "BARS",
    "ROWS",
    "TIERS",
    "Rate",
    "background_colour",
    "background_prompts",
    "background_rate",
    "row_tier",
    "tier_of",
]
