"""Video files through PyAV: sharp frames for a scene, whole clips, and H.264 that plays everywhere."""

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fvgen.errors import UserError
from fvgen.scene.formats.hdr import BT2020, TRANSFERS, tone_mapped
from fvgen.scene.formats.images import PANORAMAS

VIDEO_SUFFIXES = frozenset(
    [".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".mts", ".m2ts", ".3gp", ".ts"]
    + [".3g2", ".flv", ".ogv", ".mxf", ".vob"]
)
_WHOLE = 0.9  # share of a film that must be there
_SEARCH_SECONDS = 0.5
_SEARCH_SHARE = 0.3
_SHARPNESS_WIDTH = 480
_RECTILINEAR = 4  # of FFmpeg's AVSphericalProjection
# libswscale: bicubic, full chroma in and out, accurate rounding. Its default is a whole level too dark and repeats
# chroma, which costs 12 dB on smooth colours.
FAITHFUL = 0x4 | 0x2000 | 0x4000 | 0x40000


def sharp_frames(path: str | Path, count: int) -> list[tuple[int, Tensor]]:
    """Evenly spaced frames from the first to the last, each the sharpest of its neighbourhood.

    Around each of ``count`` even numbers, frames within 0.3 of the spacing and half a second are compared by the
    variance of their Laplacian. Only those neighbourhoods are decoded, from the key frame before each. Frames that an
    edit list hides, or that a cut took the key frame of, are none.

    Args:
        path: the video.
        count: how many, two at least; a shorter video gives all of its frames.

    Returns:
        (number of the frame in the video, image ``[H, W, 3]`` uint8, upright) in time order.

    Raises:
        UserError: not a video, no picture stream, or frames that cannot be decoded.
    """
    path = Path(path)
    times, keys, unit = _index(path)
    if len(times) < 2:
        raise UserError(f"{path}: this video has fewer than two frames")
    with _opened(path) as (container, stream):
        sharpest = _sharpest(container, stream, _windows(times, count, unit), times, keys)
        chosen = {bisect_left(times, frame.pts): _upright(frame, stream, path) for frame in sharpest}
    return sorted(chosen.items())


def frame_times(path: str | Path) -> list[float]:
    """Seconds of all frames in the order they are shown, from the file's index, without decoding.

    Raises:
        UserError: not a video, or one that was cut off.
    """
    times, _, unit = _index(Path(path))
    return [pts * unit for pts in times]


def frames_at(path: str | Path, numbers: Sequence[int]) -> list[Tensor]:
    """Some frames of a video, decoded from the key frame before the first.

    Args:
        path: the video.
        numbers: of frames in the order they are shown, ascending.

    Returns:
        ``[H, W, 3]`` uint8 each, upright.

    Raises:
        UserError: not a video, one that was cut off, or a frame that cannot be decoded.
    """
    path, found = Path(path), {}
    times, keys, _ = _index(path)
    wanted = {times[n]: n for n in numbers if n < len(times)}
    with _opened(path) as (container, stream):
        before = _key_before(keys, min(wanted, default=0))
        if before is not None and before != keys[0]:
            container.seek(before[1], stream=stream)
        for frame in _decoded(container, stream, times) if wanted else ():
            if frame.pts in wanted:
                found[wanted[frame.pts]] = _upright(frame, stream, path)
            if frame.pts is not None and frame.pts >= max(wanted):
                break
    missing = [n for n in numbers if n not in found]
    if missing:
        raise UserError(f"{path}: frame {missing[0]} cannot be decoded; copy the video again")
    return [found[n] for n in numbers]


def read_video(path: str | Path) -> tuple[Tensor, float]:
    """Decode a whole video.

    Args:
        path: the video.

    Returns:
        Frames ``[F, H, W, 3]`` uint8, upright, and frames per second (25 where the file does not say).

    Raises:
        UserError: not a video, or frames that cannot be decoded.
    """
    path = Path(path)
    with _opened(path) as (container, stream):
        _check_whole(path, container, stream)
        frames = [_upright(frame, stream, path) for frame in _decoded(container, stream)]
        rate = float(stream.average_rate or 25)
    if not frames:
        raise UserError(f"{path}: no frame of this video can be decoded")
    return torch.stack(frames), rate


def hdr_note(path: str | Path) -> str:
    """A line on what is done to the pictures of an HDR video (PQ, HLG) when they are read; empty for others.

    Raises:
        UserError: not a video.
    """
    with _opened(Path(path)) as (_, stream):
        transfer = TRANSFERS.get(int(stream.codec_context.color_trc))
    return f"filmed in HDR ({transfer}), tone-mapped to the colours of sRGB" if transfer else ""


def write_video(path: str | Path, frames: Tensor | Iterable[Tensor], fps: float) -> None:
    """Write H.264 (yuv420p, BT.709, crf 17, index first) into an ``.mp4`` file.

    yuv420p needs even sides: an odd one gets its last row or column twice.

    Args:
        path: the file.
        frames: ``[F, H, W, 3]`` uint8, or that many ``[H, W, 3]`` one by one.
        fps: frames per second.
    """
    import av

    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError("a video needs at least one frame")
    height, width = (side + side % 2 for side in first.shape[:2])
    with av.open(_local(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "17", "preset": "medium"}
        context = stream.codec_context
        context.color_range, context.colorspace = 1, 1
        context.color_primaries, context.color_trc = 1, 1
        for image in itertools.chain([first], iterator):
            picture = av.VideoFrame.from_ndarray(_even(image), format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", interpolation=FAITHFUL)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def _even(image: Tensor) -> np.ndarray:
    """``[H, W, 3]`` uint8 with even sides, the last row and column repeated where needed."""
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected uint8 [H,W,3], got {image.dtype} {tuple(image.shape)}")
    pixels = image.cpu().numpy()
    return np.ascontiguousarray(np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), "edge"))


def _local(path: str | Path) -> str:
    """The path as FFmpeg takes it for nothing else: it reads ``rec-12:30.mp4`` as an address."""
    return f"file:{path}"


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its picture stream; libav's errors become the user's."""
    import av

    try:
        with av.open(_local(path)) as container:
            stream: Any = container.streams.best("video")  # not the cover picture that may lie beside the film
            if stream is None:
                raise UserError(f"{path}: no pictures in this video file")
            stream.thread_type = "AUTO"
            yield container, stream
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read it") from None
    except (av.error.FFmpegError, OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "damaged"
        raise UserError(f"{path}: this video cannot be decoded ({reason})") from None


def _check_whole(path: Path, container: Any, stream: Any) -> None:
    """Refuse a film that was cut off while copying: using its beginning would silently lose the rest.

    An index at the front (MP4, MOV) tells by where its frames should lie in the file; how many the header counts tells
    nothing there, as an edit list may hide some.
    """
    entries = stream.index_entries
    if "mp4" in container.format.name and len(entries):
        size = path.stat().st_size
        there = sum(entry.pos + entry.size <= size for entry in entries)
        if there < _WHOLE * len(entries):
            raise UserError(f"{path}: cut off, only {there} of {len(entries)} frames are there; copy the video again")


def _check_read(path: Path, container: Any, stream: Any, frames: int, seconds: float) -> None:
    """The same for files without such an index, by what the header says of their frames or of their length."""
    if "mp4" in container.format.name:
        return
    if frames < _WHOLE * stream.frames:  # 0 where the header does not say
        raise UserError(f"{path}: cut off, only {frames} of {stream.frames} frames are there; copy the video again")
    length = (container.duration or 0) / 1e6
    if not stream.frames and seconds < _WHOLE * length:
        raise UserError(f"{path}: cut off, only {seconds:.1f} of {length:.1f} seconds are there; copy the video again")


def _numbered_only(container: Any, stream: Any) -> bool:
    """Whether frames' times cannot be believed: MPEG's program streams tell few, AVI those of decoding.

    Such films are decoded from their beginning, and their frames counted.
    """
    return container.format.name == "mpeg" or (container.format.name == "avi" and stream.codec_context.has_b_frames)


def _decoded(container: Any, stream: Any, times: list[int] | None = None) -> Iterator[Any]:
    """Frames from here on. What comes before the first that can be decoded, in a film cut in its middle, is passed.

    ``times`` are those of all frames, which are given to them where the file's cannot be believed.
    """
    from av.error import InvalidDataError

    counted = iter(times) if times is not None and _numbered_only(container, stream) else None
    begun = False
    for packet in container.demux(stream):
        try:
            frames = stream.decode(packet)
        except InvalidDataError:
            if begun:
                raise
            continue
        for frame in frames:
            begun = True
            if counted is not None:
                frame.pts = next(counted, None)
            yield frame


def _index(path: Path) -> tuple[list[int], list[tuple[int, int]], float]:
    """Times of all frames, without decoding, key frames to start at, and the seconds that the times' unit lasts.

    Frames before the first key frame, of a film cut in its middle, cannot be decoded and are none; nor are those that
    an edit list hides, though others may need them. Of key frames: (time shown, time decoded, by which files seek).
    """
    with _opened(path) as (container, stream):
        _check_whole(path, container, stream)
        unit, seconds, count = float(stream.time_base or 1), 0.0, 0
        shown: set[int] = set()
        keys: dict[int, int] = {}
        for packet in container.demux():
            if packet.pts is None:
                continue
            if packet.time_base:
                seconds = max(seconds, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream.index != stream.index:
                continue
            count += 1
            if packet.is_keyframe:
                keys[packet.pts] = packet.pts if packet.dts is None else packet.dts
            if keys and not packet.is_discard:
                shown.add(packet.pts)
        _check_read(path, container, stream, count, seconds)
        first = min(keys, default=0)
        starts = [] if _numbered_only(container, stream) else sorted(keys.items())
        return sorted(pts for pts in shown if pts >= first), starts, unit


def _key_before(keys: list[tuple[int, int]], pts: int) -> tuple[int, int] | None:
    """The last key frame that is shown at ``pts`` or before."""
    before = bisect_right(keys, pts, key=lambda key: key[0])
    return keys[before - 1] if before else None


def _windows(times: list[int], count: int, unit: float) -> list[tuple[int, int]]:
    """Disjoint time spans ``(first, last)``, in order, in each of which one frame is chosen.

    They are counted in frames, so that they stay apart where the time from frame to frame changes.
    """
    count = min(count, len(times))
    spacing = (len(times) - 1) / max(count - 1, 1)
    reach, around = int(_SEARCH_SHARE * spacing), _SEARCH_SECONDS / unit
    windows = []
    for middle in (round(i * spacing) for i in range(count)):
        near = times[max(middle - reach, 0) : middle + reach + 1]
        near = [pts for pts in near if abs(pts - times[middle]) <= around]
        windows.append((near[0], near[-1]))
    return windows


def _sharpest(
    container: Any, stream: Any, windows: list[tuple[int, int]], times: list[int], keys: list[tuple[int, int]]
) -> Iterator[Any]:
    """The sharpest frame of each window; of a window that holds none, the first one after it."""
    decoder: Iterator[Any] = iter(())
    position = None
    for first, last in windows:
        key = _key_before(keys, first)
        if key is not None and key[0] > (keys[0][0] if position is None else position):
            container.seek(key[1], stream=stream)
            decoder = _decoded(container, stream, times)
        elif position is None:
            decoder = _decoded(container, stream, times)
        best, sharpness = None, -1.0
        for frame in decoder:
            if frame.pts is None or frame.pts < first:
                continue
            position = frame.pts
            if best is not None and frame.pts > last:
                decoder = itertools.chain([frame], decoder)
                break
            value = _sharpness(frame)
            if value > sharpness:
                best, sharpness = frame, value
        if best is not None:
            yield best


def _sharpness(frame: Any) -> float:
    """Variance of the Laplacian of the grey picture, at a common size so that noise counts little."""
    scale = min(1.0, _SHARPNESS_WIDTH / max(frame.width, frame.height))
    grey = frame.reformat(max(int(frame.width * scale), 3), max(int(frame.height * scale), 3), "gray")
    g = grey.to_ndarray().astype(np.float32)
    laplacian = g[:-2, 1:-1] + g[2:, 1:-1] + g[1:-1, :-2] + g[1:-1, 2:] - 4 * g[1:-1, 1:-1]
    return float(laplacian.var())


def _upright(frame: Any, stream: Any, path: Path) -> Tensor:
    """``[H, W, 3]`` uint8: square pixels, turned as the file says.

    Raises:
        UserError: the file says that it is a panorama.
    """
    from av.sidedata.sidedata import Type

    sphere = frame.side_data.get(Type.SPHERICAL)
    kind = None if sphere is None else int.from_bytes(bytes(sphere)[:4], "little")
    if kind is not None and kind != _RECTILINEAR:
        raise UserError(f"{path}: {PANORAMAS.format(kind='360 degree video')}")
    aspect = float(stream.sample_aspect_ratio or 1)
    width = round(frame.width * aspect)
    transfer = TRANSFERS.get(int(frame.color_trc))
    # Unmarked video of this height is BT.709 by habit; libswscale would take it for BT.601.
    unmarked = int(frame.colorspace) == 2
    source = BT2020 if unmarked and transfer else "ITU709" if unmarked and frame.height >= 720 else None
    form = "rgb48le" if transfer else "rgb24"
    rgb = frame.reformat(width, frame.height, form, src_colorspace=source, interpolation=FAITHFUL)
    pixels = tone_mapped(rgb.to_ndarray(), transfer) if transfer else rgb.to_ndarray()
    return torch.from_numpy(np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4)))
