"""``fvgen evaluate``: models, baselines and outside systems against true frames."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from fvgen.errors import UserError
from fvgen.files import check_folder, must_exist
from fvgen.hub import check_models
from fvgen.packages import require_estimator, require_inpainting

if TYPE_CHECKING:
    from fvgen.evaluation.datasets import EvaluationScene
    from fvgen.evaluation.protocols import Protocol
    from fvgen.evaluation.run import Plan
    from fvgen.evaluation.task import Framing

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluate:
    """Give systems some frames of posed scenes, and score what they make of the others.

    FOLDER receives results.json, table.md, table.tex, index.html (to look at), sheets/ (contact sheets), index.json
    (which frames were given and asked for) and frames/. Started again with the same FOLDER, what is finished is not
    made again.
    """

    scenes: Annotated[Positional[tuple[str, ...]], arg(metavar="[NAME=]FOLDER...")]
    """Scenes with cameras, or data sets that hold several; NAME is what tables call the data set. Mip-NeRF 360, DL3DV,
    Tanks and Temples (of NeRF++, FVS and 3DGS), transforms.json and COLMAP are recognised."""

    output: Annotated[Path, arg(aliases=["-o"], metavar="FOLDER")]
    """The folder to write: new, empty, or of an earlier evaluation."""

    protocol: Annotated[str, arg(metavar="NAME")] = "pairs"
    """Which frames are given and asked for: pairs (of each scene's pairs.json), fvgen-5x14, fvgen-2x14,
    mvsplat360-5x56, mvsplat360-5x56_n150, depthsplat-2v, depthsplat-2v-10, every-8th, every-8th-n12, seva-3 (of each
    scene's train_test_split_3.json) or own-split (of the layout); most numbers are free."""

    index: Annotated[Path | None, arg(metavar="FILE")] = None
    """An index file that says it instead: {"SCENE": {"context": [...], "target": [...]}}."""

    models: Annotated[tuple[str, ...], arg(metavar="MODEL[:STEPS]...")] = (
        "mini-teacher:4",
        "mini-teacher:50",
        "mini:4",
    )
    """Models, each with a number of steps if not its own; a name of the package or a model folder."""

    baselines: Annotated[tuple[str, ...] | None, arg(metavar="NAME...")] = None
    """Of guide, guide+telea, points+telea (each with +blur1.0 and the like) and completed-guide. Default: the guide,
    inpainted and completed, for pairs blurred too. Telea's inpainting needs the extra `eval`."""

    frames: Annotated[tuple[str, ...], arg(metavar="NAME=FOLDER[@SIZE]...")] = ()
    """Outside systems: FOLDER/SCENE/FRAME.png, called by the frame's name or number, 8-bit RGB, of the scored size;
    FOLDER@448x256/480x270 for photographs scaled to cover 480x270 of which the inner 448x256 are shown (FOLDER@448x256:
    scaled to cover that). Then the part that all systems show is scored. FOLDER/seconds.json ({"SCENE": seconds}) tells
    how long they took."""

    handout: bool = False
    """Evaluate nothing, but write the questions into FOLDER, as pixelSplat's chunks with an evaluation index, for
    DepthSplat, MVSplat360 and others that read these; score their answers with --frames."""

    metrics: Annotated[tuple[str, ...], arg(metavar="NAME...")] = ()
    """Metrics (docs/evaluation.md). Default: the usual ones, as far as their weights are there."""

    metric_weights: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Folder with files of weights for metrics, looked in before the usual places."""

    poses: Literal["given", "estimated"] = "given"
    """Cameras of the given photos: given with them, or estimated from them alone and aligned to the given ones as a
    whole by a similarity transform."""

    geometry: Literal["colmap", "dust3r", "da3"] = "colmap"
    """What estimates them."""

    depth: Literal["auto", "sweep", "dust3r", "da3"] = "auto"
    """Where the depth of the given photos comes from, as for fvgen generate."""

    geometry_weights: Annotated[str | None, arg(metavar="FILE|NAME")] = None
    """Weights of dust3r or da3, as for fvgen generate."""

    size: Annotated[str | None, arg(metavar="WIDTHxHEIGHT")] = None
    """Size of the scored pictures for landscape scenes; swapped for portrait ones. Default: the protocol's."""

    photo_size: bool = False
    """Ask for views at the photographs' own size (at most 1024 pixels long) too, and score them there: a second report,
    in FOLDER/photo-size. Outside systems (--frames) are left out of it."""

    layout: Annotated[str, arg(metavar="NAME")] = "auto"
    """auto, mipnerf360, dl3dv, tanks-nerfpp, tanks-fvs, tanks-3dgs, nerfstudio or colmap."""

    images: Annotated[str | None, arg(metavar="FOLDER")] = None
    """Folder of pictures to read, such as images_4, of scenes that keep them in several sizes. Default: the smallest
    that cover the scored size; of Mip-NeRF 360 those that it is scored on."""

    lens: Literal["undistort", "ignore"] = "undistort"
    """Undo the lens distortion that a scene tells of, or take its pictures as they are, as some programs do."""

    page_megabytes: Annotated[float, arg(metavar="FLOAT")] = 40.0
    """Pictures embedded in index.html, about; where not all fit, some frames of each scene are."""

    seed: int = 0
    """Seed of the noise and of the estimation of cameras."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the models; auto: bfloat16 on GPUs that have it, else float32."""

    quiet: bool = False
    """Say nothing of what is done, show no bars: for scripts. Errors, and what was made, are still told."""

    def run(self) -> None:
        """Evaluate, print the table, write everything."""
        if not self.scenes:
            raise UserError("no scenes: name folders with posed pictures")
        if self.photo_size and (self.handout or self.models == self.baselines == ()):
            raise UserError("--photo-size asks systems of ours for views: name --models or --baselines, no --handout")
        for text in self.scenes:
            folder = text if Path(text).exists() else text.rpartition("=")[2]
            if not Path(folder).is_dir():
                raise UserError(f"{folder}: no such folder")
        must_exist(self.index, self.metric_weights)
        require_estimator(self.depth, self.geometry if self.poses == "estimated" else "")
        if not self.handout and (self.baselines is None or any("telea" in name for name in self.baselines)):
            require_inpainting()
        check_models(() if self.handout else self.models)
        check_folder(self.output, f"output folder {self.output}")
        from fvgen.cli.generate import parse_size
        from fvgen.evaluation.protocols import find_protocol
        from fvgen.evaluation.store import Store
        from fvgen.evaluation.task import LEAST, Framing

        protocol = find_protocol(self.protocol)
        size = parse_size(self.size) or protocol.size
        if min(size) < LEAST:
            raise UserError(f"--size {self.size}: pictures of {LEAST}x{LEAST} at least are scored")
        framing = Framing(size, protocol.through if size == protocol.size else None)
        store = None if self.handout else Store(self.output)
        plan = self._plan(protocol, framing, {scene.name: scene for scene in self._scenes(framing)})
        if store is None:
            from fvgen.evaluation.run import write_handout

            write_handout(plan, self.output)
            print(f"{len(plan.splits)} scenes or pairs in {self.output}")
            return
        from fvgen.evaluation.report import write_report
        from fvgen.evaluation.run import evaluate
        from fvgen.evaluation.scores import Scorer
        from fvgen.evaluation.systems import BLURRED, PLAIN, Baseline, Frames, Model, System

        scorer = Scorer(self.metrics, plan.placing.device, self.metric_weights)
        baselines = (BLURRED if protocol.blurs else PLAIN) if self.baselines is None else self.baselines
        systems: list[System] = [Baseline(name) for name in baselines]
        systems += [Frames(text) for text in self.frames]
        systems += [Model(text, self.device, self.dtype, self.seed) for text in self.models]
        if not systems:
            raise UserError("nothing to evaluate: name --models, --baselines or --frames")
        print(write_report(store, evaluate(plan, systems, scorer, store), self.page_megabytes))
        if self.photo_size:
            ours = [system for system in systems if not isinstance(system, Frames)]
            large = Store(self.output / "photo-size")
            scorer = Scorer(self.metrics, plan.placing.device, self.metric_weights)
            results = evaluate(replace(plan, framing=None), ours, scorer, large)
            print(write_report(large, results, self.page_megabytes))
        for reason in dict.fromkeys(scorer.absent.values()):
            names = ", ".join(name for name, why in scorer.absent.items() if why == reason)
            _log.warning("%s not computed: %s", names, reason)
        print(f"{len(plan.splits)} scenes or pairs in {self.output}; open {self.output / 'index.html'}")

    def _scenes(self, framing: "Framing") -> "list[EvaluationScene]":
        from fvgen.evaluation.datasets import find_scenes
        from fvgen.scene.layouts import Stored

        wanted = Stored(framing.through or framing.size, self.images, turns=True)
        found: list[EvaluationScene] = []
        for text in self.scenes:
            name, equals, folder = text.rpartition("=") if not Path(text).exists() else ("", "", text)
            if equals and not name:
                raise UserError(f"{text}: write NAME=FOLDER")
            for scene in find_scenes(Path(folder), self.layout, name, self.lens, wanted):
                if scene.name in {other.name for other in found}:
                    raise UserError(f"{folder}: there is another scene called {scene.name}; evaluate them one by one")
                found.append(scene)
                for remark in scene.remarks:
                    _log.info("%s: %s", scene.name, remark)
        return found

    def _plan(self, protocol: "Protocol", framing: "Framing", scenes: "dict[str, EvaluationScene]") -> "Plan":
        from fvgen.evaluation.protocols import read_index
        from fvgen.evaluation.run import Plan
        from fvgen.evaluation.task import Placing
        from fvgen.pipeline import NovelViewPipeline
        from fvgen.scene.geometry import network_for

        device = str(NovelViewPipeline(None).to(self.device).device)
        placing = Placing(self.poses, self.geometry, self.geometry_weights, device, self.seed, self.depth)
        if not self.handout:
            network_for(placing.cameras_from, placing.depth, placing.weights)  # refuse now what cannot be done later
        if self.index is None:
            splits = [split for scene in scenes.values() for split in protocol.splits(scene)]
            return Plan(self.protocol, splits, scenes, framing, placing, self.lens)
        splits, absent = read_index(self.index, {name: len(scene) for name, scene in scenes.items()})
        return Plan(f"index {self.index.name}", splits, scenes, framing, placing, self.lens, self.index, absent)
