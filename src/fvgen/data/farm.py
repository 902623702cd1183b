"""Scenes as independent tasks: in processes of this machine, or on a Ray cluster.

A task writes its scene whole or not at all, and finished scenes are not done again, so a killed worker or driver costs
the scenes in hand and nothing else.
"""

import logging
import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fvgen.data.footage import SceneTask, find_scenes
from fvgen.data.prepare import Clip, Ledger, make_samples, prepare_scene, read_clips, split_of, write_samples
from fvgen.data.recipe import PrepareRecipe
from fvgen.data.samples import Sample
from fvgen.data.shards import is_finished, remarks, write_manifest
from fvgen.errors import UserError
from fvgen.packages import require
from fvgen.progress import track
from fvgen.scene.geometry import NETWORKS, Unusable, network_for

_log = logging.getLogger(__name__)
_TRIES = 3  # of a scene whose worker dies under it
_AHEAD = 2  # scenes in hand for each worker: enough to keep it busy, few enough for memory


def prepare_pairs(
    sources: Sequence[str | Path],
    recipe: PrepareRecipe,
    folder: Path,
    workers: int = 1,
    ray_address: str | None = None,
) -> Path:
    """Make the pairs of all scenes of some sources; scenes that are finished are kept.

    Args:
        sources: folders, files, or ``procedural:N``; see :func:`fvgen.data.footage.find_scenes`.
        recipe: of the pairs.
        folder: of pairs, see :mod:`fvgen.data.shards`.
        workers: processes of this machine; where all its GPUs are used, at least one for each.
        ray_address: of a Ray cluster that does the work instead: ``auto``, ``HOST:PORT``, or ``local`` for one with
            ``workers`` CPUs that is started here.

    Returns:
        The manifest.

    Raises:
        UserError: sources without scenes; no such GPU; no Ray where it is asked for; a network asked for whose package
            or weights are not usable, here before anything is made, or on a worker, which ends the run.
    """
    network_for(recipe.geometry, recipe.depth, recipe.geometry_weights)
    tasks = find_scenes(sources)
    if recipe.depth in NETWORKS and any(task.layout == "procedural" for task in tasks):
        raise UserError(f"`depth` {recipe.depth} is for footage; prepare procedural scenes apart, with `depth` sweep")
    todo = [task for task in tasks if not is_finished(folder, split_of(task.name, recipe.held_out), task.name)]
    if ray_address:
        done = _on_ray(todo, recipe, folder, workers, ray_address)
    else:
        devices = _devices(recipe.device)
        done = _here(todo, recipe, folder, max(workers, len(devices)), devices)
    _log.info("scenes: %d to prepare, %d there already", len(todo), len(tasks) - len(todo))
    for number, name in enumerate(track(done, "scenes", total=len(todo)), 1):
        _log.info("prepared %d of %d: %s", number, len(todo), name)
        for remark in remarks(folder, split_of(name, recipe.held_out), name):
            _log.info("%s: %s", name, remark)
    return write_manifest(folder)


def _give_up(task: SceneTask, recipe: PrepareRecipe, folder: Path, reason: str, why: str) -> None:
    ledger = Ledger()
    ledger.drop(reason, why)
    write_samples([], ledger, task, recipe, folder)


def attempt(task: SceneTask, recipe: PrepareRecipe, folder: Path) -> None:
    """Prepare a scene; one that fails in a way nobody foresaw is counted and named, and stops none of the others."""
    try:
        prepare_scene(task, recipe, folder)
    except (OSError, Unusable):  # the folder of pairs: the disk is full, or gone; or a network that cannot run
        raise
    except Exception as error:
        _give_up(task, recipe, folder, "error", f"{type(error).__name__}: {error}")


def _devices(device: str) -> list[str]:
    """The devices of this machine that a recipe's device stands for: ``cuda`` for all GPUs.

    Raises:
        UserError: there is no such device here.
    """
    try:
        kind, number = torch.device(device).type, torch.device(device).index
    except RuntimeError as error:
        raise UserError(f"`device` {device}: {str(error).splitlines()[0]}") from None
    if kind != "cuda":
        return [device]
    count = torch.cuda.device_count()
    if (number or 0) >= count:
        raise UserError(f"`device` {device}: this machine has {count} GPUs that PyTorch can use")
    return [device] if number is not None else [f"cuda:{k}" for k in range(count)]


_device = "cpu"  # of this process, where it is a worker


def _attempt_here(task: SceneTask, recipe: PrepareRecipe, folder: Path) -> None:
    attempt(task, replace(recipe, device=_device), folder)


def _join(devices: Any) -> None:
    """Take a device; and end this worker when its driver is gone: nobody would wait for it, or ever stop it."""
    global _device
    driver = multiprocessing.parent_process()
    assert driver is not None

    def watch() -> None:
        driver.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    _device = devices.get()


def _pool(workers: int, devices: Sequence[str]) -> ProcessPoolExecutor:
    """Processes that take the devices in turn, each one for as long as it lives."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    for k in range(workers):
        queue.put(devices[k % len(devices)])
    return ProcessPoolExecutor(workers, context, _join, (queue,))


def _here(
    tasks: list[SceneTask], recipe: PrepareRecipe, folder: Path, workers: int, devices: Sequence[str]
) -> Iterator[str]:
    """Finished scenes by name. A worker that dies takes its pool with it; what it had in hand is tried again."""
    waiting, deaths = list(reversed(tasks)), Counter[str]()
    while waiting:
        in_hand: dict[Future[None], SceneTask] = {}
        with _pool(workers, devices) as pool, suppress(BrokenProcessPool):
            while waiting or in_hand:
                while waiting and len(in_hand) < _AHEAD * workers:
                    in_hand[pool.submit(_attempt_here, waiting[-1], recipe, folder)] = waiting[-1]
                    waiting.pop()
                for future in wait(in_hand, return_when=FIRST_COMPLETED).done:
                    future.result()
                    yield in_hand.pop(future).name
        for task in in_hand.values():  # where a worker died
            if is_finished(folder, split_of(task.name, recipe.held_out), task.name):
                yield task.name
                continue
            deaths[task.name] += 1
            if deaths[task.name] < _TRIES:
                waiting.append(task)
            else:
                _give_up(task, recipe, folder, "worker died", f"{_TRIES} times")
                yield task.name


def _on_ray(
    tasks: list[SceneTask], recipe: PrepareRecipe, folder: Path, workers: int, address: str | None
) -> Iterator[str]:
    """Finished scenes by name.

    Only so many scenes are in hand as the cluster can work on. Ray itself tries again what a killed worker had in hand.
    """
    require("ray", "`ray_address`")
    import ray

    options: dict[str, Any] = {"num_cpus": workers} if address == "local" else {"address": address}
    try:
        ray.init(**options, include_dashboard=False, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"`ray_address` {address}: no Ray cluster there ({str(error).splitlines()[0]})") from None
    try:
        yield from _flow(ray, tasks, recipe, folder.resolve())
    finally:
        ray.shutdown()


def _flow(ray: Any, tasks: list[SceneTask], recipe: PrepareRecipe, folder: Path) -> Iterator[str]:
    start, slots = _launcher(ray, recipe, folder), _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting, in_hand = list(reversed(tasks)), dict[Any, SceneTask]()
    while waiting or in_hand:
        while waiting and len(in_hand) < slots:
            task = waiting.pop()
            in_hand[start(SceneTask(task.name, task.layout, task.path.resolve(), task.part))] = task
        ready, _ = ray.wait(list(in_hand), num_returns=1)
        for result in ready:
            task = in_hand.pop(result)
            try:
                ray.get(result)
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError):
                _give_up(task, recipe, folder, "worker died", f"{_TRIES} times")
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, OSError | Unusable):
                    raise error.cause from None
                _give_up(task, recipe, folder, "error", f"{type(error.cause).__name__}: {error.cause}")
            yield task.name


def _launcher(ray: Any, recipe: PrepareRecipe, folder: Path) -> Callable[[SceneTask], Any]:
    """Start a scene on the cluster: as one task on a CPU, or read on a CPU, guided on a GPU and written on a CPU."""
    if recipe.device == "cpu":
        whole = ray.remote(num_cpus=1, max_retries=_TRIES)(attempt)
        return lambda task: whole.remote(task, recipe, folder)
    read = ray.remote(num_cpus=1, num_returns=2, max_retries=_TRIES)(read_stage)
    make = ray.remote(num_cpus=0, num_gpus=1, num_returns=2, max_retries=_TRIES)(make_stage)
    write = ray.remote(num_cpus=1, max_retries=_TRIES)(write_stage)

    def staged(task: SceneTask) -> Any:
        clips, seen = read.remote(task, recipe)
        samples, ledger = make.remote(clips, seen, task, recipe)
        return write.remote(samples, ledger, task, recipe, folder)

    return staged


def read_stage(task: SceneTask, recipe: PrepareRecipe) -> tuple[list[Clip], Ledger]:
    """All clips of a scene that may be needed, and what was dropped so far."""
    ledger = Ledger()
    return list(read_clips(task, recipe, ledger)), ledger


def make_stage(
    clips: list[Clip], ledger: Ledger, task: SceneTask, recipe: PrepareRecipe
) -> tuple[list[Sample], Ledger]:
    """The guides."""
    torch.set_num_threads(1)  # as prepare_scene
    return make_samples(clips, ledger, task, recipe), ledger


def write_stage(samples: list[Sample], ledger: Ledger, task: SceneTask, recipe: PrepareRecipe, folder: Path) -> None:
    """The scene's files."""
    write_samples(samples, ledger, task, recipe, folder)
