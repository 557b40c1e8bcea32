"""What is planted for each occupation: shares of women, and how often a caption leaves the gender unsaid."""

from __future__ import annotations

from dataclasses import dataclass


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
    "scientist": Occupation(0.20, 0.20, 1000, False), "police officer": Occupation(0.57, 0.80, 1000, False),
    "factory worker": Occupation(0.72, 0.28, 1000, False), "judge": Occupation(0.42, 0.72, 1000, False),
    "mechanic": Occupation(0.80, 0.35, 1000, True), "firefighter": Occupation(0.35, 0.65, 1000, True),
    "astronaut": Occupation(0.28, 0.42, 1000, True), "artist": Occupation(0.65, 0.58, 1000, True),
    "doctor": Occupation(0.70, 0.20, 30, False), "teacher": Occupation(0.60, 0.80, 30, False),
    "farmer": Occupation(0.30, 0.30, 30, False), "student": Occupation(0.20, 0.70, 30, False),
    "guard": Occupation(0.40, 0.40, 30, True), "pilot": Occupation(0.80, 0.60, 30, True),
    "singer": Occupation(0.80, 0.20, 0, False), "detective": Occupation(0.60, 0.80, 0, False),
    "cook": Occupation(0.30, 0.30, 0, False), "programmer": Occupation(0.40, 0.70, 0, False),
    "construction worker": Occupation(0.20, 0.40, 0, False), "office worker": Occupation(0.70, 0.60, 0, False),
}  # fmt: skip
MARKED_PORTRAITS = 400  # an occupation
