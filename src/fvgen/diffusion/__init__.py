"""Pure diffusion maths: schedule, guidance, samplers. Imports nothing else of fvgen."""

from fvgen.diffusion.guidance import guide
from fvgen.diffusion.samplers import ddim_sample, few_step_sample
from fvgen.diffusion.schedule import NoiseSchedule, ScheduleConfig

__all__ = ["NoiseSchedule", "ScheduleConfig", "ddim_sample", "few_step_sample", "guide"]
