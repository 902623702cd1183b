"""What the full-size UNet costs: 1.44 billion parameters, random weights, 16 frames of 512x320, in one process.

    python scripts/measure_full_size.py                                  # CPU, float32: one step, peak memory
    python scripts/measure_full_size.py --device cuda --dtype bfloat16   # also 50 guided and 4 unguided steps

One denoising step is one pass of the network for one clip without guidance. Memory on the CPU is the largest resident
set of the whole process, libraries included; on a GPU it is what PyTorch allocated there at most. Prints one JSON line.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable

import torch

from fvgen.diffusion import ddim_sample, guide
from fvgen.models.denoiser import Condition, VideoDenoiser
from fvgen.models.presets import preset
from fvgen.models.unet import VideoUNet

GIB = 2**30


def build(device: torch.device, dtype: torch.dtype, name: str) -> VideoDenoiser:
    """The denoiser of a preset with small random weights, made in place: never more than one copy of them."""
    config = preset(name)
    with torch.device("meta"):
        unet = VideoUNet(config.unet).to(dtype)
    unet = unet.to_empty(device=device).eval().requires_grad_(False)
    for key, value in unet.state_dict().items():
        if value.ndim > 1:
            value.normal_(std=value[0].numel() ** -0.5)
        else:
            value.fill_(float("norm" in key and key.endswith("weight")))
    return VideoDenoiser(unet, config.schedule, config.guide_variance)


def inputs(denoiser: VideoDenoiser, device: torch.device, name: str) -> tuple[torch.Tensor, Condition]:
    """Noise ``[1, 4, T, h, w]`` and a condition of random latents and tokens."""
    config = preset(name)
    shape = (1, config.unet.out_channels, config.frames, config.height // 8, config.width // 8)
    tokens = (1, config.unet.text_tokens + config.resampler.num_queries, config.unet.context_dim)
    guided = (1, config.unet.in_channels - config.unet.out_channels, *shape[2:])
    noise, concat = torch.randn(shape, device=device), torch.randn(guided, device=device)
    context, null = torch.randn(tokens, device=device), torch.randn(tokens, device=device)
    return noise, Condition(concat, context, null)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Wall seconds of ``run()``, the device's queue emptied."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return round(time.perf_counter() - start, 3)


def sample(
    denoiser: VideoDenoiser, noise: torch.Tensor, condition: Condition, steps: int, scale: float
) -> torch.Tensor:
    """DDIM with ``eta`` 1; guidance scale 1 runs one branch."""
    null = denoiser.drop(condition)

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        conditional = denoiser.velocity(x, t, condition)
        return conditional if scale == 1 else guide(conditional, denoiser.velocity(x, t, null), scale, 0.7)

    return ddim_sample(velocity, denoiser.schedule, noise, steps)


@torch.no_grad()
def main() -> int:
    """Build, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--preset", default="viewcrafter-512-16", help="a viewcrafter-* preset")
    options = parser.parse_args()
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    torch.manual_seed(0)
    result = {"device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", "dtype": options.dtype}
    result |= {"preset": options.preset, "threads": torch.get_num_threads()}
    start = time.perf_counter()
    denoiser = build(device, dtype, options.preset)
    result["parameters"] = sum(p.numel() for p in denoiser.unet.parameters())
    result["seconds_to_build"] = round(time.perf_counter() - start, 3)
    noise, condition = inputs(denoiser, device, options.preset)
    t = torch.full((1,), 999, device=device)
    result["seconds_one_step"] = seconds(lambda: denoiser.velocity(noise, t, condition), device)
    if device.type == "cuda":
        result["seconds_one_step_warm"] = seconds(lambda: denoiser.velocity(noise, t, condition), device)
        result["seconds_50_steps_guided"] = seconds(lambda: sample(denoiser, noise, condition, 50, 7.5), device)
        result["seconds_4_steps_unguided"] = seconds(lambda: sample(denoiser, noise, condition, 4, 1.0), device)
        result["peak_gpu_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
    scale = 1 if sys.platform == "darwin" else 1024  # the unit differs
    result["peak_process_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / GIB, 2)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
