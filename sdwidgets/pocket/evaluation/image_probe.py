"""What Pocket's CLIP knows of a picture: its image embeddings, and a linear probe that reads the object off them.

An IP-Adapter (Ye et al. 2023, arXiv 2308.06721) makes tokens of such an embedding, so it can hand on no more than is in there. Measured on 3,000
single objects of ENCODER, any of 200 names, by `python -m sdwidgets.pocket.evaluation.image_probe`:
.851 after 4,500 others, .925 after 18,000, .938 (.929 to .946) after 33,000.
So no IP-Adapter is carried: it was to be trained where the embedding gives 95%.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPModel, CLIPTextModel

from ...paths import data_folder
from ...statistics import Rate
from ..training.clip import read_clip
from ..training.vae import to_tensor
from ..world.datasheet import ENCODER
from ..world.scenes import Scene, pictures_of


def single_objects(count: int, seed: int = 0) -> list[Scene]:
    """`count` different scenes of one object each, as CLIP was trained on: any name, size, place and background."""
    indices = ENCODER.indices("one object")
    if not 0 < count <= len(indices):
        raise ValueError(f"there are {len(indices)} scenes of one object; give a count from 1 to that, not {count!r}")
    return [ENCODER.scene(indices[int(i)]) for i in np.random.default_rng(seed).permutation(len(indices))[:count]]


@torch.inference_mode()
def embed_pictures(towers: CLIPModel, pictures: np.ndarray, batch_size: int = 100) -> np.ndarray:
    """The image embeddings of pictures (n, 128, 128, 3) uint8: (n, 128) float32 of length 1."""
    parts = torch.from_numpy(np.asarray(pictures)).split(batch_size)
    found = [towers.visual_projection(towers.vision_model(to_tensor(part.numpy())).pooler_output) for part in parts]
    return F.normalize(torch.cat(found), dim=-1).numpy()


def embed_scenes(towers: CLIPModel, scenes: Sequence[Scene], batch_size: int = 100) -> np.ndarray:
    """`embed_pictures` of scenes as they are drawn: (n, 128)."""
    parts = (scenes[start : start + batch_size] for start in range(0, len(scenes), batch_size))
    return np.concatenate([embed_pictures(towers, pictures_of(part)) for part in parts])


def linear_probe(known: np.ndarray, words: Sequence[str], unread: np.ndarray, decay: float = 1e-5) -> list[str]:
    """The word that a linear layer reads off each of `unread` (m, width), after it learned from `known` (n, width) and their `words`.

    Logistic regression over all words, each feature scaled to variance one; `decay` times the squared weights is added to its loss. There is
    no chance in it. Raises ValueError where counts or widths do not fit.
    """
    if len(known) != len(words) or np.shape(known)[1:] != np.shape(unread)[1:]:
        raise ValueError(
            f"{np.shape(known)} embeddings with {len(words)} words, and {np.shape(unread)} to read; give a word for each, all of one width"
        )
    names = sorted(set(words))
    target = torch.tensor([names.index(word) for word in words])
    mean, deviation = known.mean(0), known.std(0).clip(1e-6)
    learn, new = (torch.from_numpy((rows - mean) / deviation).float() for rows in (known, unread))
    weight = torch.zeros(learn.shape[1], len(names), requires_grad=True)
    bias = torch.zeros(len(names), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=50, history_size=20, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = F.cross_entropy(learn @ weight + bias, target) + decay * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return [names[i] for i in (new @ weight + bias).argmax(1)]


def main() -> None:
    """Print how many of 3,000 pictures the probe names, by the number of others that it learned from: the figures of this page, in about ten minutes."""
    towers = read_clip(data_folder("pocket") / "extras" / "clip", CLIPTextModel.from_pretrained(data_folder("pocket") / "text_encoder"))  # fmt: skip
    scenes = single_objects(36_000)
    names, vectors = [scene.things[0].name for scene in scenes], embed_scenes(towers, scenes)
    for many in (4_500, 18_000, 33_000):
        read = linear_probe(vectors[:many], names[:many], vectors[33_000:])
        rate = Rate("probe", 3_000, sum(one == name for one, name in zip(read, names[33_000:], strict=True)))
        low, high = rate.interval()
        print(f"{many:6} pictures: {rate.right / 3_000:.3f}, {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
