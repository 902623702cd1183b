"""Gaussians fitted to frames: Adam, one frame at a time, photographs more often and more strictly than made-up ones."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fvgen.reconstruction.capture import Capture
from fvgen.reconstruction.density import fill_holes, floaters, initial_gaussians
from fvgen.reconstruction.gaussians import Gaussians
from fvgen.reconstruction.losses import Corrections, generated_loss, photo_loss
from fvgen.reconstruction.render import Renderer

RATES = {"means": 1.6e-4, "log_scales": 5e-3, "quaternions": 1e-3, "opacity_logits": 5e-2, "sh": 2.5e-3}
_MEANS_LAST = 0.01  # the rate of the means falls to this share
_HIGHER = 1 / 20  # share of the rate that harmonics above degree 0 have
_EPSILON = 1e-15
_PRUNE_AT = (0.5, 1.0)  # shares of the iterations


@dataclass(frozen=True)
class Settings:
    """How frames are fitted.

    Attributes:
        iterations: frames shown, one at a time.
        longest: pixels on the longer side of the frames that are fitted; larger ones are shrunk.
        gaussians: at most, at the beginning.
        degree: of the spherical harmonics, 0 to 3.
        photo_share: share of the iterations that show a photograph; 0: all frames are alike.
        trust_holes: weight of generated pixels that no point of the guide covered; covered ones have 1.
        outlier: difference of colour 0..1 at which a generated pixel's weight is halved; infinite: none is an outlier.
        colors, motions: whether generated frames get a colour map and a camera motion of their own.
        fill: whether Gaussians are put into the holes of the point cloud.
        prune: whether floaters are removed.
        dssim: share of the structural term.
        color_penalty, motion_penalty: weights of the squared corrections.
        seed: of the draws.
    """

    iterations: int = 600
    longest: int = 512
    gaussians: int = 20000
    degree: int = 0
    photo_share: float = 0.3
    trust_holes: float = 0.5
    outlier: float = 0.15
    colors: bool = True
    motions: bool = True
    fill: bool = True
    prune: bool = True
    dssim: float = 0.2
    color_penalty: float = 0.1
    motion_penalty: float = 10.0
    seed: int = 0

    def naive(self) -> "Settings":
        """All frames alike, a plain loss, no corrections: what the usual trainers do with such frames."""
        plain = replace(self, photo_share=0.0, trust_holes=1.0, outlier=math.inf)
        return replace(plain, colors=False, motions=False, fill=False, prune=False)


class Optimisation:
    """A fit in progress, which can be stopped and gone on with by :meth:`state` and :meth:`restore`.

    Args:
        capture: frames and points, in a world where float32 is enough: see `fvgen.cameras.alignment.world_from_local`.
        settings: how frames are fitted.
        renderer: how Gaussians are drawn.
        device: where the fit runs.
    """

    def __init__(self, capture: Capture, settings: Settings, renderer: Renderer, device: torch.device) -> None:
        self.capture, self.settings, self.renderer, self.device = capture, settings, renderer, device
        self.depth = max(capture.typical_depth, 1e-9)
        self.iteration = 0
        self.log: list[dict[str, float]] = []
        self._targets = capture.images.to(device).float() / 255
        self._covered = capture.covered.to(device)
        self._trust = torch.where(self._covered, 1.0, settings.trust_holes)
        self._views = capture.cameras.camera_from_world.float().to(device)
        self._intrinsics = capture.cameras.intrinsics.float().to(device)
        self.corrections = Corrections(len(capture), self.depth).to(device)
        rates = ((self.corrections.colors, 4e-3), (self.corrections.motions, 2e-4))
        self._correcting = torch.optim.Adam([{"params": [values], "lr": rate} for values, rate in rates])
        first = initial_gaussians(capture.positions, capture.colors, settings.gaussians, settings.degree, settings.seed)
        first = first.each(lambda value: value.to(device))
        first = fill_holes(first, capture, renderer) if settings.fill else first
        self._adopt({**first.parameters(), "sh": first.sh[:, :1], "sh_higher": first.sh[:, 1:]})

    def _adopt(self, parts: dict[str, Tensor]) -> None:
        """Make these the parameters, with an optimiser that knows nothing yet."""
        self._parts = {name: value.detach().clone().requires_grad_() for name, value in parts.items()}
        groups = [{"params": [value], "lr": self._rate(name), "name": name} for name, value in self._parts.items()]
        self._optimizer = torch.optim.Adam(groups, eps=_EPSILON)

    def _rate(self, name: str) -> float:
        if name == "sh_higher":
            return RATES["sh"] * _HIGHER
        if name != "means":
            return RATES[name]
        done = self.iteration / max(1, self.settings.iterations)
        return RATES["means"] * self.depth * _MEANS_LAST ** min(1.0, done)

    @property
    def gaussians(self) -> Gaussians:
        """The scene as it is now, part of the graph."""
        parts = dict(self._parts)
        higher = parts.pop("sh_higher")
        return Gaussians(**{**parts, "sh": torch.cat([parts["sh"], higher], 1)})

    @property
    def done(self) -> bool:
        """Whether all iterations are done."""
        return self.iteration >= self.settings.iterations

    def step(self) -> dict[str, float]:
        """Show one frame and improve.

        Returns:
            The line of the log: ``step``, the number of ``gaussians``, and ``photo_loss`` or ``generated_loss``.
        """
        frame = self._frame(self.iteration)
        draws = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.iteration)
        background = torch.rand(3, generator=draws).to(self.device)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(group["name"])
        loss = self._loss(frame, background)
        loss.backward()
        for optimizer in (self._optimizer, self._correcting):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.iteration += 1
        if self.settings.prune and self.iteration in {round(p * self.settings.iterations) for p in _PRUNE_AT}:
            gone = floaters(self.gaussians, self.capture, self.renderer, self.depth)
            if bool(gone.any()) and not bool(gone.all()):
                self._select(~gone)
        kind = "generated_loss" if self.capture.photo[frame] is None else "photo_loss"
        count = float(len(self._parts["means"]))
        self.log.append({"step": float(self.iteration), "gaussians": count, kind: loss.item()})
        return self.log[-1]

    def _frame(self, iteration: int) -> int:
        """Which frame an iteration shows; a function of its number alone, so that a fit goes on as it began."""
        photos, others, share = self.capture.photographs, self.capture.generated, self.settings.photo_share
        if share <= 0 or not photos or not others:
            return self._shuffled(list(range(len(self.capture))), iteration)
        before, after = math.floor(iteration * share), math.floor((iteration + 1) * share)
        return self._shuffled(photos, before) if after > before else self._shuffled(others, iteration - before)

    def _shuffled(self, frames: list[int], turn: int) -> int:
        """The frame of a turn, where every round shows each once in an order of its own."""
        rounds, place = divmod(turn, len(frames))
        generator = torch.Generator().manual_seed(self.settings.seed * 7919 + rounds)
        return frames[int(torch.randperm(len(frames), generator=generator)[place])]

    def _loss(self, frame: int, background: Tensor) -> Tensor:
        settings, made = self.settings, self.capture.photo[frame] is None
        view = self._views[frame]
        if made and settings.motions:
            view = self.corrections.camera(frame, view)
        picture = self.renderer(self.gaussians, view, self._intrinsics[frame], self.capture.cameras.size)
        shown = picture.over(background)
        target = self._targets[frame]
        if not made:  # what a mask hides is no error, whatever is there
            shown, target = (torch.where(self._covered[frame][..., None], one, 0.0) for one in (shown, target))
        if not made or settings.photo_share <= 0:
            return photo_loss(shown, target, settings.dssim)
        if settings.colors:
            shown = self.corrections.color(frame, shown)
        penalty = self.corrections.penalty(frame, settings.color_penalty, settings.motion_penalty)
        trust = self._trust[frame]
        return penalty + generated_loss(shown, target, trust, settings.dssim, settings.outlier)

    def _select(self, kept: Tensor) -> None:
        """Keep some Gaussians and what Adam knows of them."""
        old = self._optimizer
        for group in old.param_groups:
            (value,) = group["params"]
            known = old.state.pop(value, {})
            fresh = value.detach()[kept].clone().requires_grad_()
            old.state[fresh] = {k: v[kept].clone() if v.ndim else v for k, v in known.items()}
            group["params"] = [fresh]
            self._parts[group["name"]] = fresh

    def state(self) -> dict[str, Any]:
        """Tensors, numbers and lists that :meth:`restore` goes on from."""
        return {
            "iteration": self.iteration,
            "parts": {name: value.detach() for name, value in self._parts.items()},
            "optimizer": self._optimizer.state_dict(),
            "corrections": self.corrections.state_dict(),
            "correcting": self._correcting.state_dict(),
            "log": self.log,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of a fit to the same frames with the same settings."""
        self.iteration, self.log = int(state["iteration"]), list(state["log"])
        self._adopt({name: value.to(self.device) for name, value in state["parts"].items()})
        self._optimizer.load_state_dict(state["optimizer"])
        self.corrections.load_state_dict(state["corrections"])
        self._correcting.load_state_dict(state["correcting"])
