"""Downloading one file from a plain url: resumed, checked, and in place only when it is whole.

Files of Hub repositories go through ``hf_hub_download``; this is for the rest of the world (GitHub releases, Dropbox,
Google Drive). It uses huggingface_hub's HTTP session, so proxies, certificates and ``HF_HUB_OFFLINE`` mean the same for
both.
"""

import errno
import hashlib
import html
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

from huggingface_hub import constants, get_session
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

from portraitzoo.errors import CheckpointError, WeightsUnavailableError, ZooError

Progress = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes that are there, and the bytes in all (None where unknown)."""

ATTEMPTS = 5
PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_CHUNK = 2**20
_PAGE = 2**20
_RETRIED = {408, 425, 429, 500, 502, 503, 504}


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Fetch ``url`` to ``target``.

    What arrives is kept in ``<target>.part`` and taken up again by the next attempt or the next call, unless the server
    says that the file has changed since. Cut connections, time-outs and server errors are retried a few times.

    Args:
        url: where the file is; a page that asks to confirm a large download (Google Drive) is answered.
        target: the file to write; its folder is made.
        size: bytes that it must have.
        sha256: its digest, or the first digits of it.
        progress: told after every piece.

    Raises:
        WeightsUnavailableError: if the file cannot be had now; the message tells why, and what has arrived is kept.
        CheckpointError: if what arrived is not the file that the index describes; it is thrown away.
        ZooError: if the disk is full or the place cannot be written.
    """
    part = _Part(target, size)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(ATTEMPTS):
            try:
                page_url = _receive(url, part, progress)
                if page_url is not None and _receive(page_url, part, progress) is not None:
                    raise WeightsUnavailableError(f"{url} asks a person to confirm the download: {_BY_HAND}")
                break
            except _InterruptedError as problem:
                if attempt == ATTEMPTS - 1:
                    raise WeightsUnavailableError(
                        f"{url} cannot be downloaded: {problem} ({ATTEMPTS} attempts); "
                        "what has arrived is kept, run again to go on"
                    ) from problem
                time.sleep(min(problem.pause or PAUSE * 2**attempt, _LONGEST_PAUSE))
        try:
            check(part.path, url, size=size, sha256=sha256)
        except CheckpointError:
            part.discard()
            raise
        part.finish()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ZooError(f"no space left on the disk of {target}: free some and run again") from error
        raise ZooError(f"cannot write {target}: {error.strerror or error}; set PORTRAITZOO_CACHE") from error


def check(path: Path, origin: str, *, size: int | None, sha256: str | None) -> None:
    """Compare a file with what the index says about it; a file that differs is removed.

    Raises:
        CheckpointError: if it has another size or digest.
    """
    found = path.stat().st_size
    problem = None
    if size is not None and found != size:
        problem = f"it is {found} bytes long, not {size}"
    elif sha256 is not None:
        digest = sha256_of(path)
        if not digest.startswith(sha256):
            problem = f"its sha256 is {digest}, not {sha256}"
    if problem is not None:
        path.unlink()
        raise CheckpointError(f"{origin} is not the file that the index describes: {problem}; it was not kept")


def sha256_of(path: Path) -> str:
    """Sha256 of a file, as hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


_BY_HAND = "open it in a browser, then `zoo download NAME --file PATH`"


class _InterruptedError(Exception):
    """A failure that may pass; ``pause`` is how many seconds the server asked to wait."""

    def __init__(self, told: str, pause: float | None = None) -> None:
        super().__init__(told)
        self.pause = pause


class _Part:
    """The unfinished file, and the server's name (ETag) for the version that it is of."""

    def __init__(self, target: Path, size: int | None) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self._etag_path = target.with_name(target.name + ".part.etag")
        if size is not None and self.length > size:
            self.discard()

    @property
    def length(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def request_headers(self) -> dict[str, str]:
        # Without compression lengths and ranges are those of the file itself.
        headers = {"Accept-Encoding": "identity"}
        if self.length:
            headers["Range"] = f"bytes={self.length}-"
            if self._etag_path.exists():
                headers["If-Range"] = self._etag_path.read_text()
        return headers

    def begin(self, etag: str | None) -> None:
        self.discard()
        # Weak names ("W/...") may not be used to ask for the rest of a file.
        if etag and not etag.startswith("W/"):
            self._etag_path.write_text(etag)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._etag_path.unlink(missing_ok=True)

    def finish(self) -> None:
        self.path.replace(self.target)
        self._etag_path.unlink(missing_ok=True)


def _receive(url: str, part: _Part, progress: Progress | None) -> str | None:
    """One request. Returns None when the file is whole, else the url that a confirmation page leads to."""
    try:
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=part.request_headers(), timeout=timeout) as response:
            if response.status_code == 416 and part.length:
                # The part is not shorter than the file: it is whole, or of another version of it.
                if response.headers.get("Content-Range") == f"bytes */{part.length}":
                    return None
                part.discard()
                raise _InterruptedError("the server's file has changed")
            _require_success(url, response)
            if response.status_code == 206:
                _require_continuation(response.headers.get("Content-Range", ""), part)
            elif response.headers.get("Content-Type", "").startswith("text/html"):
                return _confirmation(url, response)
            else:
                part.begin(response.headers.get("ETag"))
            _store(response, part, progress)
    except OfflineModeIsEnabled as error:
        raise WeightsUnavailableError(
            f"{url} is not on this machine and HF_HUB_OFFLINE is set: unset it, or {_BY_HAND} with a file at hand"
        ) from error
    except HTTPError as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise _InterruptedError(f"the connection failed ({told})") from error
    return None


def _store(response: Any, part: _Part, progress: Progress | None) -> None:
    length = response.headers.get("Content-Length", "")
    total = part.length + int(length) if length.isdecimal() else None
    done = part.length
    with part.path.open("ab") as stream:
        # Pieces as they come: gathering them into larger ones would lose the last when the connection is cut.
        for chunk in response.iter_bytes():
            stream.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(part.target.name, done, total)
    if total is not None and done != total:
        raise _InterruptedError(f"the connection ended after {done} of {total} bytes")


def _require_success(url: str, response: Any) -> None:
    status = response.status_code
    if status in _RETRIED:
        asked = response.headers.get("Retry-After", "")
        what = "the server asks to slow down" if status == 429 else "the server fails"
        raise _InterruptedError(f"{what} (status {status})", float(asked) if asked.isdecimal() else None)
    if status in (401, 403):
        raise WeightsUnavailableError(f"{url} refuses access (status {status}): {_BY_HAND}")
    if status in (404, 410):
        raise WeightsUnavailableError(f"{url} does not exist any more (status {status}): look for the file elsewhere")
    if status not in (200, 206):
        raise WeightsUnavailableError(f"{url} cannot be downloaded: the server answers with status {status}")


def _require_continuation(content_range: str, part: _Part) -> None:
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", content_range)
    if found is None or int(found[1]) != part.length:
        part.discard()
        raise _InterruptedError("the server sent another part of the file than was asked for")


def _confirmation(url: str, response: Any) -> str:
    """Where the form of a page that asks to confirm a download leads."""
    page = b""
    for chunk in response.iter_bytes(_CHUNK):
        page += chunk
        if len(page) > _PAGE:
            break
    text = page.decode("utf-8", "replace")
    form = re.search(r"<form[^>]*action=\"([^\"]+)\"", text)
    fields = dict(re.findall(r"<input[^>]*type=\"hidden\"[^>]*name=\"([^\"]+)\"[^>]*value=\"([^\"]*)\"", text))
    if form is None or "confirm" not in fields:
        quota = "too many people have fetched it lately, try tomorrow" if "quota" in text.lower() else "not a file"
        raise WeightsUnavailableError(f"{url} answers with a web page ({quota}): {_BY_HAND}")
    return f"{urljoin(str(response.url), html.unescape(form[1]))}?{urlencode(fields)}"
