"""What happens in a clip: talking, blinking, glancing, and the slow turning of the head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.rendering.cameras import LEVEL, Camera

# Mouth shapes of speech, each a mixture of facial actions at full articulation.
_VISEMES: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.42, "mouthLowerDown": 0.2},  # as in "father"
    {"jawOpen": 0.26, "mouthStretch": 0.25, "mouthUpperUp": 0.15},  # "bed"
    {"jawOpen": 0.12, "mouthSmile": 0.35, "mouthUpperUp": 0.25, "mouthLowerDown": 0.25},  # "see"
    {"jawOpen": 0.26, "mouthFunnel": 0.55},  # "thought"
    {"jawOpen": 0.12, "mouthPucker": 0.65, "mouthFunnel": 0.2},  # "you"
    {"mouthPress": 0.35, "mouthRollLower": 0.15, "mouthRollUpper": 0.1},  # "m", "b", "p"
    {"jawOpen": 0.05, "mouthRollLower": 0.3, "mouthUpperUp": 0.25},  # "f", "v"
    {"jawOpen": 0.14, "mouthLowerDown": 0.2, "mouthShrugUpper": 0.2},  # "d", "l"
)


_Add = Callable[[str, np.ndarray], None]  # lays a curve onto an action, on both sides where it has two


@dataclass(frozen=True)
class Performance:
    """Motion of one clip.

    Attributes:
        actions: strength in [0, 1] of each facial action, in the order of the head model's labels.
        camera: camera of each frame; the world stays with the head, so the head's motion is the camera's.
    """

    actions: Float[Tensor, "time actions"]
    camera: Camera


def perform(
    random: np.random.Generator,
    labels: tuple[str, ...],
    num_frames: int,
    liveliness: float = 1.0,
    fps: float = 25.0,
) -> Performance:
    """A random performance of ``num_frames`` frames; 1 is the ``liveliness`` of a conversation, 2 a stage actor's."""
    seconds = np.arange(num_frames) / fps
    tracks = {label: np.zeros(num_frames) for label in labels}

    def add(action: str, value: np.ndarray) -> None:
        for label in (action,) if action in tracks else (action + "Left", action + "Right"):
            tracks[label] += value

    _speak(random, seconds, liveliness, add)
    _blink(random, seconds, liveliness, add)
    _mood(random, seconds, add)
    _look(random, seconds, add)
    actions = torch.from_numpy(np.stack([tracks[label] for label in labels], axis=1).clip(0, 1).astype(np.float32))
    return Performance(actions, _turn(random, seconds))


def wander(random: np.random.Generator, seconds: np.ndarray, frequency: float) -> np.ndarray:
    """A smooth random curve of about unit standard deviation whose fastest swing is ``frequency`` Hz."""
    waves = 4
    rates = frequency * random.uniform(0.2, 1.0, waves)
    phases = random.uniform(0, 2 * np.pi, waves)
    heights = random.normal(0, 1, waves)
    curve = (heights[:, None] * np.sin(2 * np.pi * rates[:, None] * seconds + phases[:, None])).sum(0)
    return curve / np.sqrt(waves / 2)


def _speak(random: np.random.Generator, seconds: np.ndarray, liveliness: float, add: _Add) -> None:
    articulation = liveliness * random.uniform(0.55, 1.15)
    rate = random.uniform(3.0, 6.0)
    time = -random.uniform(0, 1 / rate)
    while time < seconds[-1] + 0.3:
        length = random.uniform(0.75, 1.35) / rate
        if random.random() < 0.08:  # a breath between phrases
            time += random.uniform(0.15, 0.4)
            continue
        viseme = _VISEMES[random.integers(len(_VISEMES))]
        strength = articulation * random.uniform(0.6, 1.1)
        # Neighbouring shapes overlap by half, which is how articulation flows from one into the next.
        bump = np.where(np.abs(seconds - time) < length, 0.5 + 0.5 * np.cos(np.pi * (seconds - time) / length), 0.0)
        for action, value in viseme.items():
            add(action, strength * value * bump)
        time += length
    add("jawLeft", 0.06 * wander(random, seconds, 1.5).clip(0))
    add("jawRight", 0.06 * wander(random, seconds, 1.5).clip(0))


def _blink(random: np.random.Generator, seconds: np.ndarray, liveliness: float, add: _Add) -> None:
    time = random.uniform(0.1, 2.2)
    while time < seconds[-1] + 0.2:
        closing, opening = random.uniform(0.05, 0.08), random.uniform(0.08, 0.13)
        since = seconds - time
        lid = np.where(since < 0, 1 + since / closing, 1 - since / opening).clip(0, 1)
        add("eyeBlink", lid * lid * (3 - 2 * lid))
        time += random.exponential(1.6 / liveliness) + 0.35


def _mood(random: np.random.Generator, seconds: np.ndarray, add: _Add) -> None:
    mood = random.normal(0.25, 0.45)
    swing = 0.08 * wander(random, seconds, 0.5)
    add("mouthSmile", (0.4 * mood + swing).clip(0, 0.5))
    add("cheekSquint", (0.35 * mood + swing).clip(0, 0.4))
    add("mouthFrown", (-0.35 * mood - swing).clip(0, 0.3))
    brows = 0.3 * random.normal() + 0.25 * wander(random, seconds, 1.2)
    add("browInnerUp", (0.5 * brows).clip(0, 0.7))
    add("browOuterUp", (0.5 * brows).clip(0, 0.7))
    add("browDown", (-0.4 * brows).clip(0, 0.6))
    lids = 0.2 * random.normal()
    add("eyeWide", np.full_like(seconds, max(lids, 0.0)))
    add("eyeSquint", np.full_like(seconds, max(-lids, 0.0)))


def _look(random: np.random.Generator, seconds: np.ndarray, add: _Add) -> None:
    """Gaze: still for a while, then a jump of two or three frames."""
    sideways, up = np.zeros_like(seconds), np.zeros_like(seconds)
    time = 0.0
    while time < seconds[-1] + 0.1:
        turn = ((seconds - time) / 0.06).clip(0, 1)
        sideways += turn * (random.normal(0, 0.22) - sideways)
        up += turn * (random.normal(0, 0.14) - up)
        time += random.exponential(0.9) + 0.2
    for eye, sign in (("Left", 1.0), ("Right", -1.0)):
        add("eyeLookOut" + eye, (sign * sideways).clip(0))
        add("eyeLookIn" + eye, (-sign * sideways).clip(0))
        add("eyeLookUp" + eye, up.clip(0))
        add("eyeLookDown" + eye, (-up).clip(0))


def _turn(random: np.random.Generator, seconds: np.ndarray) -> Camera:
    yaw = np.clip(random.normal(0, 0.35), -0.75, 0.75) + 0.05 * wander(random, seconds, 0.6)
    pitch = np.clip(random.normal(0, 0.15), -0.35, 0.35) + 0.025 * wander(random, seconds, 0.9)
    return Camera.look_at(
        torch.from_numpy(yaw.clip(-0.8, 0.8).astype(np.float32)),
        torch.from_numpy((LEVEL + pitch).astype(np.float32)),
    )
