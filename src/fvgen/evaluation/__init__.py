"""How good views are: protocols, data sets, systems, metrics and reports."""

from typing import TYPE_CHECKING

from fvgen.lazy import exported

if TYPE_CHECKING:
    from fvgen.evaluation.datasets import EvaluationScene, find_scenes
    from fvgen.evaluation.metrics import FrameMetrics, SetMetrics, available
    from fvgen.evaluation.protocols import Protocol, Split, find_protocol
    from fvgen.evaluation.report import write_report
    from fvgen.evaluation.run import Plan, evaluate
    from fvgen.evaluation.scores import Scorer
    from fvgen.evaluation.store import Store
    from fvgen.evaluation.systems import Baseline, Frames, Made, Model, System
    from fvgen.evaluation.task import Framing, Placing, Task

__all__ = [
    "Baseline",
    "EvaluationScene",
    "FrameMetrics",
    "Frames",
    "Framing",
    "Made",
    "Model",
    "Placing",
    "Plan",
    "Protocol",
    "Scorer",
    "SetMetrics",
    "Split",
    "Store",
    "System",
    "Task",
    "available",
    "evaluate",
    "find_protocol",
    "find_scenes",
    "write_report",
]

__getattr__ = exported(
    __name__,
    {
        **dict.fromkeys(("EvaluationScene", "find_scenes"), "fvgen.evaluation.datasets"),
        **dict.fromkeys(("FrameMetrics", "SetMetrics", "available"), "fvgen.evaluation.metrics"),
        **dict.fromkeys(("Protocol", "Split", "find_protocol"), "fvgen.evaluation.protocols"),
        "write_report": "fvgen.evaluation.report",
        **dict.fromkeys(("Plan", "evaluate"), "fvgen.evaluation.run"),
        "Scorer": "fvgen.evaluation.scores",
        "Store": "fvgen.evaluation.store",
        **dict.fromkeys(("Baseline", "Frames", "Made", "Model", "System"), "fvgen.evaluation.systems"),
        **dict.fromkeys(("Framing", "Placing", "Task"), "fvgen.evaluation.task"),
    },
)
