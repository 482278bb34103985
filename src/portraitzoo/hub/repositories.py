"""Files of Hugging Face repositories: through huggingface_hub and its cache, checked, with errors that teach."""

import socket
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import constants, hf_hub_download, is_offline_mode, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import tqdm

from portraitzoo.errors import CheckpointError, WeightsUnavailableError, ZooError
from portraitzoo.hub.transfer import Progress, check

UNREACHABLE = "{} cannot be reached: check the connection, the proxy or HF_ENDPOINT"
_SHA256_DIGITS = 64


def hub_file(
    repo: str,
    filename: str,
    revision: str | None = None,
    *,
    size: int | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """A file of a Hub repository, out of huggingface_hub's cache or downloaded into it.

    huggingface_hub compares lengths but not contents; here the digest is compared as well, with the one that the index
    states or else the one under which the Hub files large files. A file that differs is removed from the cache.

    Args:
        repo: ``owner/name``.
        filename: path in the repository.
        revision: branch, tag or commit; None for the main branch.
        size: bytes that the file must have.
        sha256: its digest, or the first digits of it.
        progress: told while it is downloaded.

    Raises:
        WeightsUnavailableError: if it is not here and cannot be had now.
        CheckpointError: if what arrived is not what was announced.
        ZooError: if the cache cannot be written.
    """
    where = f"{repo}/{filename}"
    # Without a name server huggingface_hub tries six times, for half a minute.
    cached = try_to_load_from_cache(repo, filename, revision=revision)
    if not isinstance(cached, str) and not is_offline_mode() and not _has_address(constants.ENDPOINT):
        raise WeightsUnavailableError(f"{where} cannot be downloaded: {UNREACHABLE.format(constants.ENDPOINT)}")
    try:
        path = Path(
            hf_hub_download(
                repo,
                filename,
                revision=revision,
                library_name="portraitzoo",
                tqdm_class=_progress_bar(filename, progress),
            )
        )
    except GatedRepoError as error:
        page = f"{constants.ENDPOINT}/{repo}"
        raise WeightsUnavailableError(
            f"{where} is gated: accept its terms at {page}, then log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise WeightsUnavailableError(
            f"there is no repository {repo} on {constants.ENDPOINT}, or it is private: log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsUnavailableError(f"the repository {repo} has no revision {revision}") from error
    except RemoteEntryNotFoundError as error:
        raise WeightsUnavailableError(f"the repository {repo} has no file {filename}") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, HTTPError) as error:
        raise WeightsUnavailableError(f"{where} cannot be downloaded: {_reason(error)}") from error
    except OSError as error:
        if "Consistency check failed" in str(error):
            raise WeightsUnavailableError(f"{where} arrived incomplete: run again") from error
        raise ZooError(f"cannot write the cache of huggingface_hub: {error.strerror or error}") from error
    _verify(path, where, size, sha256)
    return path


def _reason(error: BaseException) -> str:
    if is_offline_mode():
        return "it is not on this machine and HF_HUB_OFFLINE is set: unset it to download"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HfHubHTTPError):
        cause = cause.__cause__
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        if status in (401, 403):
            return f"access is refused (status {status}): log in with `hf auth login`"
        if status == 429:
            return "the Hub asks to slow down (status 429): try again later"
        return f"the Hub fails (status {status}): try again later"
    return UNREACHABLE.format(constants.ENDPOINT)


def _has_address(url: str) -> bool:
    """Whether the host of a URL has an address, or a proxy looks for it."""
    parts = urlsplit(url)
    if urllib.request.getproxies():
        return True
    try:
        return bool(socket.getaddrinfo(parts.hostname, parts.port or parts.scheme))
    except OSError:
        return False


def _verify(path: Path, where: str, size: int | None, sha256: str | None) -> None:
    blob = path.resolve()
    # The Hub names the content of large files by their sha256, and huggingface_hub the blob in its cache alike.
    announced = blob.name if len(blob.name) == _SHA256_DIGITS else None
    try:
        check(blob, where, size=size, sha256=sha256 or announced)
    except CheckpointError:
        path.unlink(missing_ok=True)
        raise


def _progress_bar(filename: str, progress: Progress | None) -> type[tqdm]:
    class Reporting(tqdm):
        """Hands the counts on instead of drawing them."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._done, self._all = kwargs.get("initial") or 0, kwargs.get("total")
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            """Count ``n`` more bytes."""
            self._done += n or 0
            if progress is not None:
                progress(filename, int(self._done), self._all)

    return Reporting
