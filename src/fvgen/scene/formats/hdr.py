"""Pictures of high dynamic range, as phones film them (PQ, HLG), brought to sRGB.

Sources: ITU-R BT.2100-2 (the transfer functions), BT.2408 (203 cd/m2 is the white of paper, and white of a picture
without high dynamic range), BT.2390-10 section 5.4 (the curve that brings what is brighter below white).
"""

import numpy as np

TRANSFERS = {16: "PQ", 18: "HLG"}  # by their numbers in ITU-T H.273
BT2020 = "BT2020"
WHITE = 203.0  # cd/m2
PEAK = 1000.0  # cd/m2: what phones master for, and HLG's nominal display; what is brighter still becomes white
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
_BT709_FROM_BT2020 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]], np.float32
)


def tone_mapped(codes: np.ndarray, transfer: str) -> np.ndarray:
    """A picture coded in PQ or HLG with BT.2020's primaries, as sRGB.

    The brightest of red, green and blue is brought below white by BT.2390's curve, the others with it, so that hues
    stay. The curve is the same for all pictures, so that frames of one film fit together.

    Args:
        codes: ``[H, W, 3]`` uint16, full range.
        transfer: ``"PQ"`` or ``"HLG"``.

    Returns:
        ``[H, W, 3]`` uint8.
    """
    signal = np.arange(65536) / 65535
    if transfer == "PQ":
        light = pq_light(signal).astype(np.float32)[codes]
    else:
        scene = hlg_scene(signal).astype(np.float32)[codes]
        # The display's gamma works on luminance; its derivative at black is infinite, so black is kept apart.
        light = PEAK * scene * np.maximum(scene @ _LUMA, 1e-6)[..., None] ** np.float32(0.2)
    brightest = light.max(2)
    known = np.linspace(0, 1, 4096)  # of the PQ signal, in which the curve is smooth
    levels = pq_light(known)
    share = np.divide(compressed(levels), levels, out=np.ones_like(levels), where=levels > 0) / WHITE
    light *= np.interp(brightest, levels, share).astype(np.float32)[..., None]
    linear = np.clip(light @ _BT709_FROM_BT2020.T, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * srgb + 0.5).astype(np.uint8)


def pq_light(signal: np.ndarray) -> np.ndarray:
    """Light ``[...]`` in cd/m2, up to 10,000, of a PQ signal ``[...]`` 0..1 (BT.2100-2 table 4)."""
    power = np.asarray(signal, float) ** (1 / _M2)
    return 10_000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def pq_signal(light: np.ndarray) -> np.ndarray:
    """The PQ signal ``[...]`` 0..1 of light ``[...]`` in cd/m2; the inverse of `pq_light`."""
    power = (np.asarray(light, float) / 10_000) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def hlg_scene(signal: np.ndarray) -> np.ndarray:
    """Light of the scene, ``[...]`` 0..1, of an HLG signal ``[...]`` 0..1 (BT.2100-2 table 5)."""
    signal = np.asarray(signal, float)
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - _C) / _A) + _B) / 12)


def compressed(light: np.ndarray) -> np.ndarray:
    """Light ``[...]`` in cd/m2 brought from ``PEAK`` to ``WHITE`` at most, by BT.2390's curve; dark light stays."""
    signal, top = pq_signal(np.minimum(light, PEAK)), pq_signal(np.array(PEAK))
    most = pq_signal(np.array(WHITE)) / top
    knee = 1.5 * most - 0.5
    signal = signal / top
    t = np.clip((signal - knee) / (1 - knee), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return pq_light(np.where(signal < knee, signal, spline) * top)
