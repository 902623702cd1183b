"""Pure diffusion maths: schedule, guidance, samplers. Imports nothing else of fvgen."""

from fvgen.diffusion.guidance import guide, guide_twice
from fvgen.diffusion.samplers import (
    Generators,
    StepCallback,
    ddim_sample,
    ddim_steps,
    few_step_sample,
    unit_noise,
)
from fvgen.diffusion.schedule import NoiseSchedule, ScheduleConfig

__all__ = [
    "Generators",
    "NoiseSchedule",
    "ScheduleConfig",
    "StepCallback",
    "ddim_sample",
    "ddim_steps",
    "few_step_sample",
    "guide",
    "guide_twice",
    "unit_noise",
]
