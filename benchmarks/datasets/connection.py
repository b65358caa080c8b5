"""One HTTP request: what of its URL may be shown, who may be asked, and how long it may take."""

from __future__ import annotations

import base64
import functools
import http.client
import io
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote_to_bytes, urlsplit, urlunsplit

PASSING = {408, 416, 425, 429, 500, 502, 503, 504}  # worth another attempt


class TransferError(Exception):
    """A source did not deliver; `again` = the same source may yet do. `status`: its HTTP status, if one
    came."""

    def __init__(self, message: str, *, again: bool, status: int | None = None) -> None:
        super().__init__(message)
        self.again = again
        self.status = status


def plain(url: str) -> str:
    """`url` without user, password, query and fragment, any of which may be a secret: the only form of a URL in
    messages and records. Never fails: a broken URL has secrets, too."""
    scheme, separator, rest = str(url).partition("://")
    if not separator:
        scheme, rest = "", scheme
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        rest = rest[authority.rindex("@") + 1 :]
    elif not re.fullmatch(r"(\[.*|[^:]*)(:\d*)?", authority):  # a password with one of /?# in it
        rest = rest.rpartition("@")[2]
    return scheme + separator + re.split(r"[?#]", rest, maxsplit=1)[0]


def plain_text(text: str) -> str:
    """`text` with each URL in it as `plain` shows it."""
    return re.sub(r"\w+://[^\s'\"]+", lambda found: plain(found[0]), text)


def host(url: str) -> str:
    """Host and port of `url`, as far as they can be told, for messages."""
    return re.split(r"[/?#]", plain(url).partition("://")[2], maxsplit=1)[0]


class Pace:
    """Gives up a source that delivers less than `rate` bytes a second over `window` seconds of waiting for it.

    timeout: the longest that one wait can last; a process that was stopped meanwhile does not count as more.
    """

    def __init__(self, rate: float, window: float, timeout: float) -> None:
        self.rate, self.window, self.timeout = rate, max(window, 2 * timeout), timeout
        self.waited, self.came = 0.0, 0

    def check(self) -> None:
        if self.waited < self.window:
            return
        if self.came < self.rate * self.waited:
            raise TransferError(
                f"sent {self.came:,} bytes in {self.waited:.0f} s, less than {self.rate / 1e3:g} kB/s: given up",
                again=False,
            )
        self.waited, self.came = 0.0, 0


@contextmanager
def request(url: str, pace: Pace, *, header: str | None, wanted: str | None, validator: str | None = None) -> Iterator:
    """The open answer to a GET of `url`, whose status is 2xx; TransferError for whatever goes wrong until then.

    header: "Name: value", ${VARIABLES} filled in. wanted, validator: of the headers Range and If-Range. Redirections
    to other schemes than http(s) are not followed; user and password of the URL are sent as HTTP has it, to that
    host alone.
    """
    extra = _header(header)
    with network_errors():
        url, credentials = _split_user(url)
        asked = urllib.request.Request(url, headers={"User-Agent": "scl-clustering", "Accept-Encoding": "identity"})
        if wanted:
            asked.add_header("Range", wanted)
        if validator:
            asked.add_header("If-Range", validator)
        for name, value in {**credentials, **extra}.items():
            asked.add_unredirected_header(name, value)  # not handed to the host that a redirect names
        response = _opener(pace).open(asked, timeout=pace.timeout)
    with response:
        yield response


@contextmanager
def network_errors() -> Iterator[None]:
    """Errors of URL, network and answer as TransferError, whose messages quote neither. Only reads from the network
    stand inside: a full disk is not one of them."""
    try:
        yield
    except TransferError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        text = f"HTTP status {error.code} ({http.client.responses.get(error.code, 'unknown')})"
        text += ", a redirection that cannot be followed" if error.code // 100 == 3 else ""
        raise TransferError(text, again=error.code in PASSING, status=error.code) from error
    except TimeoutError as error:
        raise TransferError("nothing came for the whole time-out (downloads.timeout)", again=True) from error
    except OSError as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise TransferError(" ".join(str(reason).split()), again=True) from error
    except Exception as error:  # ValueError, UnicodeError, OverflowError, HTTPException and more, by what is sent
        sound = isinstance(error, http.client.HTTPException) and not isinstance(error, http.client.InvalidURL)
        what = "its answer is no sound HTTP" if sound else "the URL, or one that it redirects to, is not valid"
        raise TransferError(f"{what} ({type(error).__name__})", again=sound) from error


def _header(header: str | None) -> dict[str, str]:
    if not header:
        return {}
    name, _, value = header.partition(":")
    value = os.path.expandvars(value).strip()
    if not re.fullmatch(r"[\x20-\x7e\xa0-\xff]+", name + value):
        raise ValueError(
            "downloads.imagenet.header: with its variables filled in it holds a line break or characters that "
            "HTTP does not allow; give one line of Latin-1 characters"
        )
    return {name.strip(): value}


def _split_user(url: str) -> tuple[str, dict[str, str]]:
    """(`url` without user and password, the header that carries them)"""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    token = unquote_to_bytes(user if ":" in user else user + ":")
    return urlunsplit(parts._replace(netloc=place)), {"Authorization": f"Basic {base64.b64encode(token).decode()}"}


def _opener(pace: Pace) -> urllib.request.OpenerDirector:
    """For http and https alone, through the proxies of the environment."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
        _Connections(pace),
    ):
        opener.add_handler(handler)
    return opener


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, asked, answer, code, message, headers, url):
        url, credentials = _split_user(url)
        if urlsplit(url).scheme not in ("http", "https"):
            return None  # HTTPDefaultErrorHandler then makes an error of it
        moved = super().redirect_request(asked, answer, code, message, headers, url)
        assert moved is not None  # it raises HTTPError instead
        for name, value in credentials.items():
            moved.add_unredirected_header(name, value)
        return moved


class _Connections(urllib.request.AbstractHTTPHandler):
    """http and https, with the time spent waiting for each byte of the answers, headers included, on `pace`."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self.pace = pace

    def _timed(self, kind):
        def connect(place, **options):
            connection = kind(place, **options)
            connection.response_class = functools.partial(_Response, self.pace)
            return connection

        return connect

    def http_open(self, asked):
        return self.do_open(self._timed(http.client.HTTPConnection), asked)

    def https_open(self, asked):
        return self.do_open(self._timed(http.client.HTTPSConnection), asked)

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_


class _Response(http.client.HTTPResponse):
    def __init__(self, pace: Pace, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.fp = io.BufferedReader(_Timed(self.fp.detach(), pace))


class _Timed(io.RawIOBase):
    """The bytes of a socket; a time-out bounds each wait for some, `pace` all of them together."""

    def __init__(self, raw, pace: Pace) -> None:
        self.raw, self.pace = raw, pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        began = time.monotonic()
        try:
            count = self.raw.readinto(buffer)
        finally:
            self.pace.waited += min(time.monotonic() - began, self.pace.timeout)
        self.pace.check()
        return count

    def close(self) -> None:
        self.raw.close()
        super().close()
