"""The mathematics of distillation: losses, critic and methods. It owns no optimizer, device or loop."""

from typing import TYPE_CHECKING

from fvgen.lazy import exported

if TYPE_CHECKING:
    from fvgen.distillation.config import AnchorConfig, DistillationConfig
    from fvgen.distillation.critic import CriticHead, calibration_error
    from fvgen.distillation.losses import (
        approximate_r1,
        critic_loss,
        denoising_loss,
        distribution_matching_gradient,
        generator_loss,
        regression_loss,
        surrogate,
        weight,
    )
    from fvgen.distillation.methods import (
        Clips,
        Denoiser,
        Dmd2,
        GanInit,
        Method,
        OdeRegression,
        Outcome,
        Polish,
        Roles,
        SoftDmd,
        Stage,
        stages,
    )

__all__ = [
    "AnchorConfig",
    "Clips",
    "CriticHead",
    "Denoiser",
    "DistillationConfig",
    "Dmd2",
    "GanInit",
    "Method",
    "OdeRegression",
    "Outcome",
    "Polish",
    "Roles",
    "SoftDmd",
    "Stage",
    "approximate_r1",
    "calibration_error",
    "critic_loss",
    "denoising_loss",
    "distribution_matching_gradient",
    "generator_loss",
    "regression_loss",
    "stages",
    "surrogate",
    "weight",
]

__getattr__ = exported(
    __name__,
    {
        **dict.fromkeys(("AnchorConfig", "DistillationConfig"), "fvgen.distillation.config"),
        **dict.fromkeys(("CriticHead", "calibration_error"), "fvgen.distillation.critic"),
        **dict.fromkeys(
            (
                "approximate_r1",
                "critic_loss",
                "denoising_loss",
                "distribution_matching_gradient",
                "generator_loss",
                "regression_loss",
                "surrogate",
                "weight",
            ),
            "fvgen.distillation.losses",
        ),
        **dict.fromkeys(
            (
                "Clips",
                "Denoiser",
                "Dmd2",
                "GanInit",
                "Method",
                "OdeRegression",
                "Outcome",
                "Polish",
                "Roles",
                "SoftDmd",
                "Stage",
                "stages",
            ),
            "fvgen.distillation.methods",
        ),
    },
)
