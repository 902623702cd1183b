"""A complete model: autoencoder, conditioner, denoiser and how they are sampled; one folder on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fvgen.diffusion import ScheduleConfig
from fvgen.errors import UserError
from fvgen.files import genuine
from fvgen.hub import WEIGHTS, find_model
from fvgen.models.autoencoder import AutoencoderConfig, FrameAutoencoder
from fvgen.models.conditioner import ImageConditioner, VisionConfig
from fvgen.models.denoiser import Condition, GuideVariance, VideoDenoiser
from fvgen.models.lora import Adapter, low_rank_layers, save_adapter
from fvgen.models.lora_config import LoraConfig
from fvgen.models.resampler import ResamplerConfig
from fvgen.models.unet import VideoUNet, VideoUNetConfig


@dataclass(frozen=True)
class SamplingConfig:
    """How a model wants to be sampled.

    Attributes:
        steps: denoising steps.
        guidance_scale: classifier-free guidance; 1 runs one branch only.
        guidance_rescale: pulls guided predictions back to the spread of the conditional one.
        eta: noise of DDIM; unused by few-step models.
        temperature: below 1, a model that predicts around its guide stays nearer to it (``VideoDenoiser.prior``);
            above 1 it goes farther.
        few_step: ``True`` re-noises predicted ``x0`` (a distilled student), ``False`` runs DDIM.
        sample_guide: the guide's latents are sampled from their posterior, as the teacher does, not its mode.
        told_share: how much of its change of the guide is taken where photographs alone decide that (`Guide.told`);
            where they say nothing all of it is, between the two in proportion.
    """

    steps: int = 50
    guidance_scale: float = 1.0
    guidance_rescale: float = 0.7
    eta: float = 0.0
    temperature: float = 1.0
    few_step: bool = False
    sample_guide: bool = False
    told_share: float = 1.0


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build a model but its weights.

    Attributes:
        width, height: native size in pixels, landscape; portrait swaps them.
        frames: most frames of one window.
        guide: what the network is shown: ``"lookup"``, the photographs' colours looked up and completed, or
            ``"points"``, the splatting of points over black that ViewCrafter's models learnt from.
        coverage_channel: the share of covered pixels is one more input channel.
        guide_variance: error of the guide around which the network predicts, or ``None`` (see :class:`VideoDenoiser`).
        vision: the image tower, or ``None``: image tokens are then the same for every image.
    """

    width: int = 256
    height: int = 160
    frames: int = 16
    guide: Literal["lookup", "points"] = "lookup"
    coverage_channel: bool = True
    guide_variance: GuideVariance | None = field(default_factory=GuideVariance)
    unet: VideoUNetConfig = field(default_factory=VideoUNetConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    vision: VisionConfig | None = field(default_factory=VisionConfig)
    resampler: ResamplerConfig = field(default_factory=ResamplerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        if self.guide not in ("lookup", "points"):
            raise ValueError(f"guide '{self.guide}' is neither lookup nor points")
        if self.sampling.told_share != 1 and (self.guide_variance is None or self.guide != "lookup"):
            raise ValueError("only what predicts around a guide of looked-up colours takes another `told_share` than 1")

    @property
    def grid(self) -> int:
        """Width and height in pixels must be multiples of this."""
        return self.autoencoder.spatial_factor * 2 ** (len(self.unet.channel_mult) - 1)


class VideoModel(nn.Module):
    """Autoencoder, conditioner and denoiser of one :class:`ModelConfig`."""

    def __init__(
        self,
        config: ModelConfig,
        autoencoder: FrameAutoencoder,
        conditioner: ImageConditioner,
        denoiser: VideoDenoiser,
    ) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = autoencoder
        self.conditioner = conditioner
        self.denoiser = denoiser

    @staticmethod
    def build(config: ModelConfig, device: str = "cpu") -> VideoModel:
        """An untrained model; on the device ``meta`` its weights take no memory until they are assigned."""
        with torch.device(device):
            conditioner = ImageConditioner(config.vision, config.resampler, config.unet.text_tokens)
            unet = VideoUNet(config.unet)
            autoencoder = FrameAutoencoder(config.autoencoder)
        denoiser = VideoDenoiser(unet, config.schedule, config.guide_variance)
        return VideoModel(config, autoencoder, conditioner, denoiser)

    def concat_condition(self, guide: Tensor, coverage: Tensor, noise: Tensor | None = None) -> Tensor:
        """What is concatenated with the noised latents: the guide's latents, and its coverage where the model has it.

        Args:
            guide: ``[B, T, 3, H, W]`` in -1..1, of the kind that the configuration names.
            coverage: ``[B, T, H, W]`` bool.
            noise: ``[B, C, T, h, w]``, see :meth:`FrameAutoencoder.encode`.

        Returns:
            ``[B, C (+1), T, h, w]``.
        """
        return self.with_coverage(self.autoencoder.encode(guide, noise), coverage)

    def with_coverage(self, latents: Tensor, coverage: Tensor) -> Tensor:
        """A guide's latents with the share of covered pixels as one more channel, where the model has that channel.

        Args:
            latents: ``[B, C, T, h, w]``.
            coverage: ``[B, T, H, W]`` bool.

        Returns:
            ``[B, C (+1), T, h, w]``.
        """
        if not self.config.coverage_channel:
            return latents
        share = nn.functional.avg_pool2d(coverage.float(), self.autoencoder.spatial_factor)
        return torch.cat([latents, share[:, None].to(latents) * 2 - 1], dim=1)

    def condition(
        self, guide: Tensor, coverage: Tensor, image: Tensor, noise: Tensor | None = None, guided: bool = True
    ) -> Condition:
        """The condition of a batch of clips.

        Args:
            guide, coverage, noise: as :meth:`concat_condition` takes them.
            image: ``[B, 3, H, W]`` in -1..1, what cross-attention sees; the teacher's is the first frame of the clip,
                a photograph.
            guided: ``False`` leaves out the null context, which only guidance needs.
        """
        context = self.conditioner.context(image).float()
        null = self.conditioner.null_context(image).float() if guided else None
        return Condition(self.concat_condition(guide, coverage, noise), context, null)

    def latent_shape(self, clip: Tensor) -> tuple[int, ...]:
        """The shape ``[B, C, T, h, w]`` that the latents of a clip ``[B, T, 3, H, W]`` have."""
        b, t, _, h, w = clip.shape
        factor = self.autoencoder.spatial_factor
        return b, self.autoencoder.latent_channels, t, h // factor, w // factor

    def decode(self, latents: Tensor, concat: Tensor, guide: Tensor, wanted: Tensor) -> Tensor:
        """Decode the wanted frames of a batch of clips.

        A model that predicts around its guide decodes around it too: what it leaves alone keeps every pixel of the
        guide, and the autoencoder's own error is left out of the picture.

        Args:
            latents: ``[B, C, T, h, w]`` of the clips.
            concat: ``[B, C (+1), T, h, w]`` of the condition, which holds the guide's latents.
            guide: ``[B, T, 3, H, W]`` in -1..1.
            wanted: ``[F]`` numbers of the frames that are decoded, counted through the batch.

        Returns:
            ``[F, 3, H, W]``, about -1..1, float32.
        """
        frames = self._decoded(latents, wanted)
        if self.config.guide_variance is None:
            return frames
        change = frames - self._decoded(concat[:, : latents.shape[1]], wanted)
        return guide.flatten(0, 1)[wanted].float() + change

    def shown_latents(self, latents: Tensor, condition: Condition) -> Tensor:
        """What a training looks at, ``[B, C, T, h, w]``: clips' latents with what users are not shown left out.

        Where the guide was measured they are the guide's but for the ``told_share`` of the change. Training pairs know
        coverage alone, which is less than photographs tell.
        """
        left_out = 1 - self.config.sampling.told_share
        if not left_out:
            return latents
        guide, measured = condition.guide(latents.shape[1])
        return torch.lerp(latents, guide.to(latents), (left_out * measured).to(latents))

    def _decoded(self, latents: Tensor, wanted: Tensor) -> Tensor:
        chosen = latents.transpose(1, 2).flatten(0, 1)[wanted]  # F C h w
        return self.autoencoder.decode(chosen.transpose(0, 1)[None])[0]

    def save(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Write ``model_index.json``, one folder of safetensors per component, all in ``dtype``.

        Raises:
            ValueError: the denoiser has adapters: merge them, or save them alone.
        """
        if low_rank_layers(self.denoiser):
            raise ValueError("this denoiser has adapters: merge them, or save them alone")
        write_configs(folder, self.config, self.autoencoder.vae.config.scaling_factor)
        for name, module in self.components().items():
            (folder / name).mkdir(exist_ok=True)
            state = {k: v.detach().to(dtype).contiguous() for k, v in module.state_dict().items()}
            save_file(state, folder / name / "model.safetensors", metadata={"format": "pt"})

    def save_adapter(
        self,
        folder: Path,
        adapters: LoraConfig,
        base: str | Path,
        base_fingerprint: str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Write a folder that :meth:`load` takes, with the adapters of the denoiser and a reference to their base.

        Args:
            folder: made if it is not there.
            adapters: the options that the denoiser was adapted with (:func:`fvgen.models.lora.adapted`).
            base: the model that the denoiser, the autoencoder and the conditioner are of: a name or a folder.
            base_fingerprint: what :func:`fvgen.models.lora.fingerprint` says of its denoiser as it lies on disk.
            dtype: number format of the factors on disk.

        Raises:
            UserError: there is no such base.
        """
        home = find_model(base)
        name = home.name if home.parent == WEIGHTS else str(home.resolve())
        save_adapter(folder, self.denoiser, adapters, name, base_fingerprint, dtype)
        write_configs(folder, self.config, None)

    def components(self) -> dict[str, nn.Module]:
        """The parts by the name of their folder."""
        return {"unet": self.denoiser.unet, "vae": self.autoencoder.vae, "conditioner": self.conditioner}

    @staticmethod
    def load(folder: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> VideoModel:
        """Read a model folder, or a model of the package by its name (``mini``, ``mini-teacher``).

        Each tensor goes from the file straight to its place and number format: no second copy of the model exists.
        A folder with an adapter gives a plain model too: its base is read, and the factors are added on the way.

        Args:
            folder: the folder or the name.
            device: where the weights go.
            dtype: number format of the weights.

        Raises:
            UserError: if there is no such model, the folder is not one, or an adapter's base is another or gone.
        """
        path = find_model(folder)
        config, adapter, home = read_config(path), Adapter.read(path), _home(path)
        with _complete(path):
            model = VideoModel.build(config, device="meta")
            for name, module in model.components().items():
                state = _read(home / name / "model.safetensors", device, dtype, adapter if name == "unet" else None)
                module.load_state_dict(state, strict=True, assign=True)
            scaled = json.loads((home / "vae" / "config.json").read_text())
        model.autoencoder.vae.register_to_config(**scaled)
        return model.to(device).eval()


def _home(path: Path) -> Path:
    """The folder with a model's weights: its own, or its base's where it is an adapter."""
    adapter = Adapter.read(path, factors=False)
    if adapter is None:
        return path
    # As it was named, as seen from the adapter's folder, beside that folder.
    for place in (adapter.base, path / adapter.base, path.resolve().parent / Path(adapter.base).name):
        if (Path(place) / "model_index.json").is_file() or (WEIGHTS / place / "model_index.json").is_file():
            home = find_model(place)
            if Adapter.read(home, factors=False) is not None:
                raise UserError(f"the base of {path}, {home}, is an adapter itself: save it as a whole model first")
            return home
    raise UserError(
        f"the base of {path}, {adapter.base}, is not there: put it beside {path}, or name its folder as 'base' in "
        f"{path / 'adapter.json'}"
    )


@contextmanager
def _complete(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a complete fvgen model: {first}") from error


def read_config(path: Path) -> ModelConfig:
    """What a model folder says of itself, its weights left unread but looked for.

    Raises:
        UserError: it does not describe a model, or a part of it, or of its base, is missing.
    """
    home = _home(path)
    with _complete(path):
        config = config_from_dict(json.loads((path / "model_index.json").read_text()))
        for name in ("vae/config.json", *(f"{part}/model.safetensors" for part in ("unet", "vae", "conditioner"))):
            if not (home / name).is_file():
                raise FileNotFoundError(f"{name} is missing")
    return config


def write_configs(folder: Path, config: ModelConfig, scaling_factor: float | None) -> None:
    """Write everything of a model folder but its weights; without ``scaling_factor`` what stands beside an adapter."""
    index = {"_class_name": "NovelViewPipeline", "_library": "fvgen", **asdict(config)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    if scaling_factor is not None:
        (folder / "vae").mkdir(exist_ok=True)
        scaled = {"scaling_factor": scaling_factor}
        (folder / "vae" / "config.json").write_text(json.dumps(scaled, indent=2) + "\n")


def _read(file: Path, device: str | torch.device, dtype: torch.dtype, adapter: Adapter | None) -> dict[str, Tensor]:
    """Tensors copied one by one, so that the file may be replaced while the model is in use."""
    with safe_open(genuine(file), "pt", device=str(device)) as stored:
        tensors = ((name, stored.get_tensor(name)) for name in sorted(stored.keys()))
        changed = tensors if adapter is None else adapter.merged(tensors, "unet.", file.parent.parent)
        return {name: value.to(dtype, copy=True) for name, value in changed}


_NOW = {"measured_share": "told_share"}  # what keys of older folders are called now


def config_from_dict(values: dict) -> ModelConfig:
    """The inverse of ``dataclasses.asdict``; keys that start with an underscore are left out, others must be known.

    Raises:
        TypeError: for an unknown key.
        ValueError: for a value that means nothing.
    """
    known = {k: v for k, v in values.items() if not k.startswith("_")}
    if "completed_guide" in known and "guide" not in known:  # folders written before there were two kinds
        known["guide"] = "lookup" if known.pop("completed_guide") else "points"
    if known.get("guide") == "surface":  # folders written before colours were looked up
        known["guide"] = "lookup"
    for part in fields(ModelConfig):
        if isinstance(part.default_factory, type) and known[part.name] is not None:
            lists = {_NOW.get(k, k): tuple(v) if isinstance(v, list) else v for k, v in known[part.name].items()}
            known[part.name] = part.default_factory(**lists)
    return ModelConfig(**known)
