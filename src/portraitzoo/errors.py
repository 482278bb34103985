"""Errors that are the user's to fix: one sentence that says what is wrong and what to do."""


class ZooError(Exception):
    """A failure that portraitzoo foresees. Its message is one line, complete without a traceback.

    The command line prints the message and exits with status 1; Python users may catch it.
    """


class UnknownEntryError(ZooError):
    """A name that is neither in the index nor a path."""


class CheckpointError(ZooError):
    """A weight file that is damaged, hostile, of another family or of another shape."""


class MediaError(ZooError):
    """A video, an image or a camera file that cannot be used as it is."""


class WeightsUnavailableError(ZooError):
    """Weights that are not on this machine and cannot be fetched now."""
