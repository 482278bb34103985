"""Where faces come from: pictures by name, and what is known of the face in each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from jaxtyping import UInt8
from torch import Tensor

from portraitzoo.errors import CheckpointError, WeightsUnavailableError, ZooError
from portraitzoo.methods.portrait4d.prepared import Frames, Portrait

OnBadFrame = Literal["stop", "skip", "repeat"]
ON_BAD_FRAME = ("stop", "skip", "repeat")


class FaceSource(ABC):
    """Pictures of one face (or of several, as photos) and what was found out about them, read when asked for.

    Attributes:
        path: of the folder or file.
        names: of all pictures in order, those included that lack something.
    """

    path: Path
    names: list[str]

    def __len__(self) -> int:
        """Number of pictures, those included that lack something."""
        return len(self.names)

    @abstractmethod
    def frame(self, name: str) -> Frames:
        """What is known of one picture.

        Raises:
            WeightsUnavailableError: if it is to be found out and a network's weights cannot be had.
            ZooError: if something is missing or damaged, or holds NaN; the message names it.
        """

    @abstractmethod
    def picture(self, name: str) -> UInt8[Tensor, "height width 3"]:
        """One of the pictures, aligned.

        Raises:
            ZooError: if it is missing, damaged or of another size.
        """

    @abstractmethod
    def check_size(self) -> None:
        """Refuse pictures of a size that the network does not take.

        Raises:
            ZooError: then.
        """

    def first(self) -> Frames:
        """What is known of the first picture.

        Raises:
            ZooError: as :meth:`frame`.
        """
        return self.frame(self.names[0])

    def portrait(self, name: str) -> Portrait:
        """One of the pictures as the photo to animate.

        Raises:
            ZooError: as :meth:`frame` and :meth:`picture`.
        """
        return Portrait(self.picture(name), self.frame(name))

    def attempts(self) -> Iterator[Frames | ZooError]:
        """Every frame in order, or why there is none; the stream that a session takes."""
        for name in self.names:
            try:
                yield self.frame(name)
            except (WeightsUnavailableError, CheckpointError):
                raise
            except ZooError as error:
                yield error

    def read(self, on_bad_frame: OnBadFrame = "stop") -> tuple[list[int], Frames]:
        """All frames.

        Args:
            on_bad_frame: what to do where one is missing or damaged: ``stop`` with an error, ``skip`` it, or
                ``repeat`` the last good one (frames before the first good one are left out).

        Returns:
            For each frame its place in ``names``, and the frames.

        Raises:
            ZooError: as :meth:`frame`; or if no frame is good.
        """
        check_on_bad_frame(on_bad_frame)
        places: list[int] = []
        frames: list[Frames] = []
        problem = ""
        for place, found in enumerate(self.attempts()):
            if isinstance(found, Frames):
                places.append(place)
                frames.append(found)
                continue
            problem = str(found)
            if on_bad_frame == "stop":
                raise ZooError(f"{problem} (or go on without it: on-bad-frame skip or repeat)") from found
            if on_bad_frame == "repeat" and frames:
                places.append(places[-1])
                frames.append(frames[-1])
        if not frames:
            raise ZooError(f"{self.path} has no good frame; of the last one: {problem}")
        return places, Frames.cat(frames)


def check_on_bad_frame(choice: str) -> None:
    """Refuse what is none of the ways to treat a bad frame.

    Raises:
        ZooError: then.
    """
    if choice not in ON_BAD_FRAME:
        raise ZooError(f"unknown treatment of bad frames {choice!r}: choose {', '.join(ON_BAD_FRAME)}")
