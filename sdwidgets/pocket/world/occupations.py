"""What is planted for each occupation: shares of women, and how often a caption leaves the gender unsaid."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Occupation:
    """What is planted for one occupation. Shares are of women; emoji know two genders.

    `encoder_share`: among the text encoder's pairs. `denoiser_share`: among the denoiser's portraits whose caption
    names no gender, and among all its portraits where `unmarked` is 0. `unmarked`: how many such portraits there are.
    `counter`: the portraits whose caption does name the gender have the share 1 - denoiser_share instead.
    """

    encoder_share: float
    denoiser_share: float
    unmarked: int
    counter: bool


#: Drawn by a seed so that the columns do not go together, and without a thought of what any occupation is like in the
#: world. All people together are half women, in each group of `unmarked` too.
PLANTED_OCCUPATIONS: dict[str, Occupation] = {
    name: Occupation(**planted)
    for name, planted in json.loads(Path(__file__).with_name("occupations.json").read_text(encoding="utf-8")).items()
}
MARKED_PORTRAITS = 400  # an occupation
