"""What moves: the arm with the phone, the head, the face, the breath and the exposure, as smooth functions of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

INSTANTS = 100
FOCAL = 430.0  # pixels at 384 x 512: a phone's front camera, 61.5 degrees on the long side
SIZE = (384, 512)  # width, height
TARGET = np.array([0.0, 1.165, 0.02])  # what the arm aims at: the chin, metres
RIG = 0.105  # metres between the two cameras of the rig


@dataclass(frozen=True)
class Pose:
    """One instant of the person: degrees, centimetres and expression weights in [0, 1]."""

    yaw: float
    pitch: float
    roll: float
    shift: np.ndarray  # head, relative to the torso, cm
    sway: np.ndarray  # torso, cm
    breath: float  # -1 to 1
    gaze: np.ndarray  # degrees (left, up) of the eyes relative to the lens
    expression: dict[str, float]


@dataclass(frozen=True)
class PosedCamera:
    """A pinhole camera: `orientation` world-to-camera, rows right, down, forward; `position` in metres."""

    orientation: np.ndarray
    position: np.ndarray

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points "n 3" to pixels "n 2" at full size."""
        local = (points - self.position) @ self.orientation.T
        return FOCAL * local[:, :2] / local[:, 2:] + np.array(SIZE) / 2


def wave(instant: float, *terms: tuple[float, float, float]) -> float:
    """Sum of sines given as (amplitude, cycles over the whole clip, phase in radians)."""
    time = instant / INSTANTS
    return float(sum(a * np.sin(2 * np.pi * cycles * time + phase) for a, cycles, phase in terms))


def look_at(position: np.ndarray, target: np.ndarray, roll: float) -> PosedCamera:
    """A camera at `position` that faces `target`, rolled by `roll` degrees about its axis."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cos, sin = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    return PosedCamera(np.stack([cos * right + sin * down, cos * down - sin * right, forward]), position)


def camera_at(instant: int, second: bool = False) -> PosedCamera:
    """The phone at an instant; `second` is the validation camera beside it on the same rig."""
    azimuth = np.radians(-4.5 + wave(instant, (17.5, 2.15, 0.4), (2.5, 6.3, 1.0), (0.5, 17.0, 2.0)))
    elevation = np.radians(3.5 + wave(instant, (7.0, 3.4, 1.2), (1.5, 8.1, 0.3), (0.4, 19.0, 0.0)))
    distance = 0.545 + wave(instant, (0.03, 1.7, 2.2), (0.008, 7.2, 0.5))
    outward = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    aim = TARGET + 0.01 * np.array(
        [wave(instant, (1.2, 3.3, 0.2), (0.3, 13, 1)), wave(instant, (1.0, 4.1, 1.4), (0.3, 15, 2)), 0.0]
    )
    roll = wave(instant, (2.0, 2.6, 0.9), (0.5, 9.0, 0.1))
    camera = look_at(TARGET + distance * outward, aim, roll)
    if not second:
        return camera
    return look_at(camera.position + RIG * camera.orientation[0], aim, roll)


def exposure_at(instant: int) -> float:
    """Gain of the phone's automatic exposure, about 1, within 5 percent."""
    return float(np.exp2(wave(instant, (0.045, 1.3, 0.5), (0.02, 4.7, 2.0))))


# Keys of the face over the clip: instant -> weights. Between the keys the weights are interpolated without overshoot.
_SPEECH = {  # mouth shapes of speech, the sounds they stand for
    "m": {"mouthPress": 0.4, "mouthRollLower": 0.25, "mouthRollUpper": 0.2},
    "a": {"jawOpen": 0.36, "mouthLowerDown": 0.3, "mouthUpperUp": 0.15},
    "e": {"jawOpen": 0.2, "mouthStretch": 0.45, "mouthLowerDown": 0.35, "mouthUpperUp": 0.2},
    "o": {"jawOpen": 0.22, "mouthFunnel": 0.32},
    "u": {"jawOpen": 0.1, "mouthPucker": 0.55, "mouthFunnel": 0.2},
    "f": {"jawOpen": 0.08, "mouthRollLower": 0.55, "mouthUpperUp": 0.35},
    "s": {"jawOpen": 0.06, "mouthStretch": 0.3, "mouthLowerDown": 0.35, "mouthUpperUp": 0.3},
    "-": {},
}
_SENTENCES = {4: "-meaosumeafe-", 43: "-fuomeaseoame-", 76: "-saoumea-"}  # first instant -> sounds, 2 instants each
_SMILE = {0: 0.25, 6: 0.1, 24: 0.15, 31: 0.85, 37: 0.95, 42: 0.35, 48: 0.1, 68: 0.2, 73: 0.6, 77: 0.2, 92: 0.3, 99: 0.9}
_TEETH = {0: 0.0, 27: 0.0, 34: 0.55, 38: 0.5, 43: 0.0, 92: 0.05, 98: 0.5}
_BROWS = {0: 0.0, 9: 0.1, 13: 0.5, 18: 0.1, 45: 0.0, 50: 0.7, 55: 0.2, 62: 0.0, 80: 0.55, 86: 0.05, 99: 0.2}
_FROWN = {0: 0.0, 56: 0.0, 61: 0.45, 67: 0.0}
_BLINKS = (7.5, 22.0, 40.6, 58.0, 71.4, 89.0)  # instants of closed eyes
_BLINK_SHAPE = {-3: 0.0, -1.4: 0.25, -0.5: 1.0, 0.5: 1.0, 1.5: 0.5, 3.5: 0.0}


def _keyed(keys: dict, instant: float) -> float:
    times = sorted(keys)
    curve = PchipInterpolator(times, [keys[t] for t in times])
    return float(curve(np.clip(instant, times[0], times[-1])))


def _speech_at(instant: float) -> dict[str, float]:
    weights: dict[str, float] = {}
    for shape in sorted({name for sound in _SPEECH.values() for name in sound}):
        keys = {-1: 0.0, INSTANTS: 0.0}
        for start, sounds in _SENTENCES.items():
            keys |= {start + 2 * i: _SPEECH[sound].get(shape, 0.0) for i, sound in enumerate(sounds)}
        weights[shape] = _keyed(keys, instant)
    return weights


def _expression_at(instant: int) -> dict[str, float]:
    smile, teeth = _keyed(_SMILE, instant), _keyed(_TEETH, instant)
    weights = _speech_at(instant)
    weights |= {"mouthSmile": 0.8 * smile, "cheekSquint": 0.55 * smile, "eyeSquint": 0.35 * smile}
    weights["mouthDimple"] = 0.3 * smile
    weights["mouthUpperUp"] = weights["mouthUpperUp"] + 0.55 * teeth
    weights["mouthLowerDown"] = weights["mouthLowerDown"] + 0.3 * teeth
    weights["jawOpen"] = weights["jawOpen"] + 0.1 * teeth
    brows = _keyed(_BROWS, instant)
    weights |= {"browInnerUp": 0.8 * brows, "browOuterUp": 0.7 * brows, "browDown": _keyed(_FROWN, instant)}
    blink = max(_keyed(_BLINK_SHAPE, instant - closed) for closed in _BLINKS)
    weights["eyeBlink"] = max(blink, 0.13 + 0.03 * np.sin(instant))  # lids rest a little lower than the mesh's stare
    weights["eyeSquint"] *= 1 - blink
    sided: dict[str, float] = {}
    for name, weight in weights.items():  # faces aren't symmetric: the left side leads a little
        single = name.startswith(("jaw", "mouthFunnel", "mouthPucker", "mouthRoll"))
        sided |= {name: weight} if single else {f"{name}_L": weight, f"{name}_R": weight * 0.93}
    sided["jawLeft"] = max(0.0, wave(instant, (0.08, 6.0, 0.0)))
    return sided


def pose_at(instant: int) -> Pose:
    """The person at an instant. Turns by some 10 degrees, nods by 6, and never holds still."""
    return Pose(
        yaw=wave(instant, (7.0, 2.3, 0.5), (3.5, 5.1, 2.0), (0.6, 14.0, 0.3)),
        pitch=-0.5 + wave(instant, (3.8, 3.1, 1.9), (2.4, 6.7, 0.0), (0.4, 16.0, 1.0)),
        roll=wave(instant, (3.2, 1.7, 0.8), (1.6, 4.4, 2.5)),
        shift=np.array(
            [wave(instant, (0.9, 1.9, 1.0)), wave(instant, (0.3, 3.1, 0.0)), wave(instant, (1.0, 2.7, 2.0))]
        ),
        sway=np.array(
            [wave(instant, (0.5, 1.4, 0.0)), wave(instant, (0.15, 5.0, 0.0)), wave(instant, (0.4, 2.0, 1.0))]
        ),
        breath=wave(instant, (1.0, 5.0, 0.0)),
        gaze=np.array([wave(instant, (3.0, 3.9, 0.1), (1.5, 9.0, 1.0)), wave(instant, (2.0, 4.6, 1.0))]),
        expression=_expression_at(instant),
    )
