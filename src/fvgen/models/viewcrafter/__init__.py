"""ViewCrafter's published checkpoints: their keys, their configuration, conversion both ways."""

from fvgen.models.viewcrafter.convert import Choice, from_viewcrafter, to_viewcrafter

__all__ = ["Choice", "from_viewcrafter", "to_viewcrafter"]
