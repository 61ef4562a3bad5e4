"""HTTP requests to an object store, which are repeated if their failure may be temporary."""

from __future__ import annotations

import io
import logging
import random
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, SSLError

_PASSING_STATUS = {408, 429, 500, 502, 503, 504}
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 3.0
_READ_TIMEOUT = 60.0
_WARN_SECONDS = 10.0
_CONNECT_TIMEOUT = 5.0
_BLOCK = 256 * 1024

_log = logging.getLogger(__name__)


def is_passing(error: Exception) -> bool:
    """Tell whether the same request may succeed a little later."""
    reason: object = error
    if isinstance(error, SSLError):
        reason = error.args[0] if error.args else error
        if isinstance(reason, ssl.SSLCertVerificationError) or "WRONG_VERSION_NUMBER" in str(reason):
            return False
    return isinstance(error, HTTPError | OSError)


class Backoff:
    """Pauses that double and vary at random, until ``seconds`` have passed since this object was made."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._pause = _FIRST_PAUSE

    def sleep(self) -> bool:
        """Wait for the next attempt; return False at once if no time is left for it."""
        # Many threads fail at the same moment; random pauses keep them from trying again at the same moment.
        pause = self._pause * random.uniform(0.5, 1.0)
        if self._clock() + pause >= self._end:
            return False
        time.sleep(pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return True


class PatientPool(urllib3.PoolManager):
    """A connection pool that repeats a request on refused and broken connections and on temporary server errors.

    The client library sends only requests that may be repeated: reads, whole objects, numbered parts.
    """

    def __init__(self, seconds: float, connections: int, **settings: Any) -> None:
        self.seconds = seconds
        self._warn_at = 0.0
        super().__init__(maxsize=connections, retries=False, blocksize=_BLOCK, **settings)

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **request: Any
    ) -> urllib3.BaseHTTPResponse:
        """Send a request, and repeat it while its failure may be temporary, for at most ``seconds``."""
        body = request.pop("body", None)
        # Half of the time, so that a silent connection leaves time for another attempt.
        half = self.seconds / 2
        request["timeout"] = urllib3.Timeout(connect=min(_CONNECT_TIMEOUT, half), read=min(_READ_TIMEOUT, half))
        backoff = Backoff(self.seconds)
        start = time.monotonic()
        while True:
            # A body given as bytes would have to be sent within one time-out, however large; a stream is sent in
            # blocks, each with its own time-out. The client has set Content-Length.
            stream = io.BytesIO(body) if isinstance(body, bytes) and body else body
            try:
                response = super().urlopen(method, url, redirect, body=stream, **request)
            except (HTTPError, OSError) as error:
                if not is_passing(error) or not backoff.sleep():
                    raise
                self._warn(start, urlsplit(url).netloc, "does not answer")
                continue
            if response.status not in _PASSING_STATUS or not backoff.sleep():
                return response
            self._warn(start, urlsplit(url).netloc, f"answers with status {response.status}")
            response.drain_conn()
            response.release_conn()

    def _warn(self, start: float, server: str, trouble: str) -> None:
        """Warn from time to time that the store fails, once for all waiting threads."""
        now = time.monotonic()
        if now - start < _WARN_SECONDS or now < self._warn_at:
            return
        self._warn_at = now + _WARN_SECONDS
        _log.warning("the store at %s %s; trying again for %.0f s", server, trouble, start + self.seconds - now)
