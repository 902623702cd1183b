"""Pure diffusion maths: schedule, guidance, samplers. Imports nothing else of fvgen."""

from fvgen.diffusion.guidance import guide, guide_twice
from fvgen.diffusion.samplers import DdimStep, Generators, ddim_sample, ddim_steps, few_step_sample, unit_noise
from fvgen.diffusion.schedule import NoiseSchedule, ScheduleConfig

__all__ = [
    "DdimStep",
    "Generators",
    "NoiseSchedule",
    "ScheduleConfig",
    "ddim_sample",
    "ddim_steps",
    "few_step_sample",
    "guide",
    "guide_twice",
    "unit_noise",
]
