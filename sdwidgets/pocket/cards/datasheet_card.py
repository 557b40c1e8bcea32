"""The datasheet of Pocket's data for people: "Datasheets for Datasets" (Gebru et al. 2021, arXiv 1803.09010), answered.

Every figure of the plan is taken from the frozen plan, `data/datasheet/planted.json`. To write the sheet again::

    python -m sdwidgets.pocket.cards.datasheet_card
"""

from __future__ import annotations

import json
from collections import Counter

from ...paths import data_folder
from ..world.scenes import SIZE

SHEET = """# Datasheet: the scenes that Pocket learns from

The questions are those of "Datasheets for Datasets" (Gebru et al. 2021, [arXiv 1803.09010](https://arxiv.org/abs/1803.09010)), some drawn together. Two sets are
described: **FULL**, which the denoiser is trained on, and **ENCODER**, which the text encoder is trained on. This is FULL's **second edition**: what the first was, and
why it was replaced, stands under "Maintenance". The plan's figures are taken by a program from [`planted.json`](planted.json), which was frozen on 29 November 2026,
before this edition's training. Tests draw scenes again and find the sheet true, down to the pixels of the scenes in [`renders.json`](renders.json).

## Motivation

**For what purpose was the data set created?** So that every claim which a course makes on a diffusion model - what it has seen, what it remembers, where a bias
comes from - can be checked against the truth. Nobody can say what a Stable Diffusion checkpoint really saw; here it is known to the last picture, and
what a lesson wants to show was planted on purpose and written down first.

**Who created it, and who funded it?** The authors of sdwidgets, as part of the course. There was no grant.

**Any other comments?** It is a laboratory and no picture of the world: what makes it useful, that all of it is known, is what makes it small and unlike real data.

## Composition

**What do the instances represent?** Scenes: one to four drawn things (emoji of objects and people, plain shapes) on a plain background, with an English caption.

**How many instances are there?** FULL has {scenes:,}, ENCODER {encoder_scenes:,}.

| kind of scene | FULL | ENCODER |
|-|-|-|
{blocks}

In ENCODER rare objects stand among "one object", as often as any other: the text encoder is not what makes them rare.

**Does it contain all possible instances, or is it a sample?** A sample, drawn by a fixed seed ({seed}) from the endless set of scenes that the grammar allows. It is finite, so that
"how often was this seen" has an answer: see the end of this section.

**What does each instance consist of?** A picture of {size} x {size} pixels (RGB, 8 bits) and its caption, and as plain data all that is in it: kind, name, place, size and colour of each
thing, background, style, relation, watermark, confetti; of people occupation, gender and tone. Scene number i is a pure function: `make_scene(FULL, i)`; `render` draws it.

In FULL things stand **on a lattice**: all of one size at one phase of {step} pixels, because a U-Net with two downsamplings has to learn each thing anew at every other phase.

| things | longer side, pixels | where |
|-|-|-|
| one | 64, 48 | nine places: centres at 32, 64 and 96, across and down |
| one, large; a portrait | 96 | in the middle |
| one in a pencil sketch, under a watermark or amid confetti | 64 | in the middle: these would change by more than being moved |
| two in a relation | 48 | 7 layouts of each relation; "and" is drawn as "to the left of" |
| two, three or four alike | 48 | 16, 8 and 1 layouts (four stand in the corners) |

Centres of things that share a picture are at least 64 pixels apart, across or down. Pixel art has blocks of 4 pixels, so that a thing has the same blocks at each of its places.
In ENCODER sizes and places are free. Its pixel art is drawn with the same blocks today; when the text encoder and the autoencoder's encoder were trained, it had blocks of 6.1 pixels.

**Is there a label?** The caption; one in ten leaves the background unsaid. {nameless_count} kinds of objects are drawn and only ever called "a thing": {nameless}.

**Is any information missing?** From captions, and on purpose: what they leave unsaid varies from picture to picture, so that seeds matter. The plain data tell all of it, and
`datasheet.alternatives` lists every picture that FULL draws to a caption, with its probability (not of "a thing", nor amid confetti). In FULL

- of a single thing that has a choice, three captions in ten name a size, and three in ten a place, though none of a large thing. Where no size is said, it is {sizes}
  (beside a place never 96), and each place that the size has is as probable as any other. "On the left" says how far across and not how far down;
- one in ten leaves the background unsaid, and none says the shade, by which a background is lighter or darker: -6 to 6 of 255;
- {unmarked:,} portraits are told by the occupation alone, without gender and tone; of those whose caption says the gender, half leave out the tone.

Seeds vary least where a caption leaves only the shade open: "four", which has one layout; portraits told in full; what always stands in the middle.

**Are relationships between instances made explicit?** Yes: {repeated} pictures with a fingerprint are repeated, each by the number that the plan says; see "redundancies".

**Are there recommended splits?** All of FULL is for training. What is tested is what was **held out** of both sets (SHA-256 of the lists: `{digest}`):

| held out | what |
|-|-|
| objects | {held_objects}: neither drawn nor named |
| a style | {held_style} |
| backgrounds | for each of the {common_count} common objects one of the ten colours, on which it never stands |
| colours of shapes | for each of the {shape_count} shapes one colour that it never has |
| pairs | {pair_count:,} pairs, of two objects or of an occupation and an object, never together in a picture: a tenth of all |
| rare objects | each is shown on five backgrounds only, and tested on the other five |
| captions about confetti | {unseen_prints}, whose pictures are never shown |

The **autoencoder** is trained on scenes without words (`scenes.wordless_scene`) and **has seen every glyph, every shape and every style, held-out ones included**. So what is held out
is held out of the text encoder and of the denoiser, not of the decoder: Pocket can decode what it was never taught to draw.

**Are there errors, noise, or redundancies?** Redundancies are planted. Confetti that no caption determines is a picture's fingerprint:

| times that one picture is in FULL | captions |
|-|-|
{fingerprints}

Others come by chance, since a lattice has few places: among portraits, which have one, 17% are the same as an earlier one, caption, shade and all. They count as often as they are there.

No label is wrong. Two glyphs can look much alike; which ones, the judge's tables of confusions tell.

**Is it self-contained?** Yes. Glyphs were drawn once from Noto Color Emoji into `data/atlas`, which is part of the repository; scenes need no font and no network.

**Is there anything confidential, offensive or disturbing?** Nothing confidential. Among the objects are a skull, a spider and a snake, as small drawings.

**Does it relate to people?** To drawings of people: {occupation_count} occupations, each as a woman and as a man in five skin tones, as the font draws them. No real person is shown, so none can be identified
and there was none to ask, to tell, or to take consent from. People are more than the two drawn genders and five tones that the plan takes from the font.

**Does it identify subpopulations?** By drawn gender, in shares that are **planted**: drawn by a seed, within .2 to .8, independent of each other and of what any occupation is like in the world. All portraits of FULL
together show women in half ({women:,} of {people:,}), and so do the pictures of a person beside an object. They mean nothing about people; they are there so that what a model makes of them can be measured.

| occupation | women, ENCODER | women, FULL | portraits whose caption leaves it unsaid | portraits whose caption says it | of these, women |
|-|-|-|-|-|-|
{occupations}

"Women, FULL" is the share among portraits whose caption names no gender (among all of an occupation's portraits where there is no such caption). Where the last column is another share, the captions that do
say it are counter-skewed. Tones are evenly spread over all portraits.

**Common and rare objects.** {common_count} objects are common: of pictures with one object each is in exactly as many, of the others in about as many. {tail_count} are rare, in:

| pictures in FULL | objects |
|-|-|
{tail}

**Does it contain sensitive data?** No: of drawings only.

**Any other comments?** Counts are those of the plan, and the mix of one epoch. An epoch is a new order in which each picture stands as often as the plan holds it, so how often a picture was shown
is a whole number: pictures times whole epochs, and of an epoch that is not over what its seed says. From an epoch's start on, a training may show a block two or more times an epoch, and it may use
a part of FULL (`scene_order.training_scenes`), a fair sample. Both leave alone what is planted: portraits, rare and nameless objects, styles, stock photos and confetti are always used whole, and shown as
often as the plan says. The training's record tells every stage, and the model card how often what is rare or repeated here was really shown.

## Collection process

**How was the data acquired?** Drawn by a program from a plan: nothing was collected, crawled, bought or labelled by hand, and nobody was paid or unpaid for it.

**What mechanisms were used, and how were they validated?** The program itself, `sdwidgets.pocket.world.datasheet` and `sdwidgets.pocket.world.scenes`. Tests draw scenes again and compare them with the plan
(counts, shares, held-out lists, captions), with written-down hashes of captions and of pixels, and look for the watermark where it is told and where it is not.

**Who was involved, and how were they paid?** The authors of the course; nobody else, and nobody was paid for it.

**What was the sampling strategy?** Each scene's random stream is seeded by its number; counts and shares of women are exact, not drawn; sizes and places are drawn.
The plan's own lists (rare, held-out and nameless objects, backgrounds, pairs) were drawn by the same seed.

**Over what time frame?** The plan was written and frozen in November 2026: the first edition on the 23rd, with the lists that both have, the second on the 29th. The pictures are drawn again
whenever they are needed, all of them in a few minutes; the glyphs are of one version of the font, which the atlas names.

**Was there an ethical review?** No institution was asked. The drawn people are the one part that could do harm; the answers above and the uses below are written for that reason.

**Were people told, did they consent, and can they revoke it?** There are no data subjects: no one is shown, described or recorded, so there was no one to tell, no consent to ask for and none to revoke.

**Was the impact on data subjects analysed?** There are none. The impact on people whom a reader may see in the drawings was thought of: shares are drawn by a seed so that none of them agrees with a
stereotype on purpose, and the sheet and the model card say that they mean nothing about anyone. No formal analysis was made.

**Any other comments?** None.

## Preprocessing, cleaning, labelling

**Was any done?** Glyphs were cropped and scaled once, into the atlas. Pictures are drawn by `sdwidgets.pocket.world.scenes`, which is in the repository. Training reads them as latents of the frozen autoencoder.

**Was the raw data saved?** The raw data are the atlas, the plan and the program; all are in the repository.

**Is the software available that did it?** Yes, all of it: `python -m sdwidgets.pocket.world.atlas` cuts the glyphs, `sdwidgets.pocket.world.scenes` draws, `sdwidgets train` encodes.

**Any other comments?** None.

## Uses

**Has it been used already?** For Pocket: its model card is `data/pocket/README.md`.

**Is there a repository that links to its uses?** Only this one: `data/pocket` holds the one model that is known to be trained on it, and its issues are the place to tell of others.

**What else could it be used for?** Small generative models, judges of such pictures, studies of memory, composition, rare concepts and bias in which the truth has to be known.

**Is there anything that might affect future uses?** The planted shares. Whoever trains on FULL gets a model with them, and must tell so.

**For what should it not be used?** For any statement about people, genders, skin tones or occupations in the world, and for any model that is meant to serve people. A model trained on it is biased by design.

**Any other comments?** None.

## Distribution

**Is it given to third parties?** Yes, to everyone: it is public with the repository.

**How is it distributed, and has it a DOI?** As atlas, plan and program in the repository and in the Python package. It has no DOI of its own; `CITATION.cff` says how to cite the whole.

**When is it distributed?** Since the plan was frozen, with every version of the repository.

**Under which licence?** With the sdwidgets repository and package, as atlas, plan and program, under Apache-2.0. Noto Color Emoji's image resources are under Apache-2.0, the font under the SIL Open Font
License 1.1: see NOTICE. There are no fees.

**Do third parties restrict it, or does export control?** Nothing is known of it beyond the licences above.

**Any other comments?** A watermark is drawn on {stock:,} scenes of FULL, whose captions begin with "stock photo of". It names no real agency.

## Maintenance

**Who maintains it, and how can they be reached?** The authors of sdwidgets, through the repository's issues.

**Is there an erratum?** None of this edition. It replaced a first one, which was at fault in where things stood:

- **First edition, 23 and 24 November 2026**: 271,265 scenes, with free sizes and places when it was frozen, and from the next day on with things on a grid of 8 pixels. Pocket's first denoiser was
  trained on it, on 707,696 samples, and drew objects badly. A U-Net with two downsamplings is equivariant to shifts of 32 pixels only, so on that grid it had to learn each thing anew at sixteen
  phases. (Another fault lay in the training, where most of the network stood still; but in trials of the same length the phases were what made the difference.)
- **Second edition, 29 November 2026**: things stand on the lattice above, and counts are such that one epoch has the mix to be shown: {scenes:,} scenes. Words, the held-out lists with their hash,
  shares of women, rare objects and their counts, fingerprints and their repeats, and ENCODER's scenes and captions stayed; other counts and the scenes of FULL are new.

**Will it be updated?** Not under a model: a changed plan is a new edition, frozen before its training, with new weights of the denoiser, as this one is. The sheet of the first edition promised no other,
and that was too much.

**Are there limits on how long it is kept?** None: it is about no one.

**Are older versions supported?** The first edition stays in the repository's history, with its plan, its program and the weights that were trained on it; nothing else is promised.

**Can others extend it, and how are contributions validated?** Yes: a grammar is a list of blocks in `sdwidgets/pocket/world/datasheet.py`, and `sdwidgets train --grammar NAME` trains on it. A contribution comes as a pull request; the tests must
hold, the frozen plan's hash among them, and a maintainer reads it. Grammars of others need not come here to be used.

**Any other comments?** None.
"""


def _kinds(blocks: dict[str, int]) -> Counter:
    """Scenes by kind: what stands before a block's colon."""
    counted: Counter = Counter()
    for name, count in blocks.items():
        kind, _, rest = name.partition(": ")
        counted[{"tail": "rare object", "confetti": "confetti around an object"}.get(kind, kind)] += count
    return counted


def _share_marked(planted: dict) -> float:
    """The share of women among portraits whose caption names the gender."""
    return 1 - planted["denoiser_share"] if planted["counter"] else planted["denoiser_share"]


def datasheet_card(planted: dict) -> str:
    """The sheet in Markdown. `planted`: what `data/datasheet/planted.json` holds."""
    full, encoder = _kinds(planted["blocks"]), _kinds(planted["encoder blocks"])
    kinds = [*full, *(kind for kind in encoder if kind not in full)]
    people, held = planted["occupations"], planted["held out"]
    said = {name: planted["blocks"][f"portrait, marked: {name}"] for name in people}
    women = sum(
        round(_share_marked(p) * said[name]) + round(p["denoiser_share"] * p["unmarked"]) for name, p in people.items()
    )
    rare: dict[int, list[str]] = {}
    for name, count in planted["tail objects"].items():
        rare.setdefault(count, []).append(name)
    repeats = Counter(mark["repeats"] for mark in planted["fingerprints"])
    words = {0: "never", None: "100 pictures, all different"}
    order = sorted(repeats, key=lambda count: 0.5 if count is None else count)
    return SHEET.format(
        scenes=planted["scenes"],
        encoder_scenes=planted["encoder scenes"],
        blocks="\n".join(f"| {kind} | {full[kind]:,} | {encoder[kind]:,} |" for kind in kinds),
        seed=planted["seed"],
        size=SIZE,
        step=planted["lattice"]["pixels"],
        sizes=", ".join(f"{size} pixels in {odds:.0%}" for size, odds in planted["lattice"]["unsaid sizes"].items()),
        nameless_count=len(planted["nameless objects"]),
        nameless=", ".join(planted["nameless objects"]),
        unmarked=full["portrait, unmarked"],
        repeated=sum(count for number, count in repeats.items() if number and number > 1),
        digest=planted["held out sha256"],
        held_objects=", ".join(held["objects"]),
        held_style=held["style"],
        common_count=len(planted["common objects"]),
        shape_count=len(held["shape colours"]),
        pair_count=len(held["pairs"]),
        unseen_prints=len(held["fingerprint captions"]),
        fingerprints="\n".join(f"| {words.get(count, count)} | {repeats[count]} |" for count in order),
        occupation_count=len(people),
        women=women,
        people=full["portrait, marked"] + full["portrait, unmarked"],
        occupations="\n".join(
            f"| {name} | {p['encoder_share']:.2f} | {p['denoiser_share']:.2f} | {p['unmarked']:,} | {said[name]:,} | {_share_marked(p):.2f} |"
            for name, p in people.items()
        ),
        tail_count=len(planted["tail objects"]),
        tail="\n".join(f"| {count} | {', '.join(names)} |" for count, names in sorted(rare.items())),
        stock=full["stock photo"],
    )


def write_datasheet() -> None:
    """Write `data/datasheet/README.md` from the frozen plan beside it."""
    folder = data_folder("datasheet")
    planted = json.loads((folder / "planted.json").read_text(encoding="utf-8"))
    (folder / "README.md").write_text(datasheet_card(planted), encoding="utf-8")


if __name__ == "__main__":
    write_datasheet()
