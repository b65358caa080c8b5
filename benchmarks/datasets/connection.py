"""One HTTP request: what may be shown of its URL, which hosts may be contacted, and how long it may take."""

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

TRANSIENT = {408, 416, 425, 429, 500, 502, 503, 504}  # HTTP statuses that are worth another attempt


class TransferError(Exception):
    """A source did not deliver. retry: whether the same source may still do so. status: its HTTP status, if any."""

    def __init__(self, message: str, *, retry: bool, status: int | None = None) -> None:
        super().__init__(message)
        self.retry, self.status = retry, status


def plain(url: str) -> str:
    """`url` without user, password, query and fragment, any of which may be a secret: the only form of a URL in
    messages and records. Never fails, since a malformed URL may contain secrets, too."""
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
    """Host and port of `url` for messages, however malformed it is."""
    return re.split(r"[/?#]", plain(url).partition("://")[2], maxsplit=1)[0]


class Pace:
    """Gives up on a source that delivers less than `rate` bytes per second over `window` seconds of waiting for it.

    timeout: the most that one wait can count, so that time while the process was suspended is ignored.
    """

    def __init__(self, rate: float, window: float, timeout: float) -> None:
        self.rate, self.window, self.timeout = rate, max(window, 2 * timeout), timeout
        self.waited, self.received = 0.0, 0

    def check(self) -> None:
        if self.waited < self.window:
            return
        if self.received < self.rate * self.waited:
            speed = f"{self.received:,} bytes in {self.waited:.0f} s, less than {self.rate / 1e3:g} kB/s"
            raise TransferError(f"sent {speed}: given up", retry=False)
        self.waited, self.received = 0.0, 0


@contextmanager
def request(url: str, pace: Pace, *, headers: dict[str, str], secret: str | None = None) -> Iterator:
    """The open response to a GET of `url`, with a 2xx status. Raises TransferError for any failure until then.

    secret: an additional header "Name: value", ${VARIABLES} expanded. Like the user and password of the URL, it is sent
    only to this host, not to redirect targets. Redirects to schemes other than http(s) are not followed.
    """
    secrets = _expanded(secret)
    with network_errors():
        url, credentials = _split_user(url)
        sent = {"User-Agent": "scl-clustering", "Accept-Encoding": "identity", **headers}
        query = urllib.request.Request(url, headers=sent)
        for name, value in {**credentials, **secrets}.items():
            query.add_unredirected_header(name, value)
        opener = urllib.request.build_opener(_Redirects, _Connections(pace))
        try:
            response = opener.open(query, timeout=pace.timeout)
        except urllib.error.HTTPError as error:
            where = error.filename or ""  # the last URL
            if secrets and error.code in (401, 403) and where != query.full_url:
                error.close()
                text = f"{_status(error.code)} after a redirection to {host(where)}, to which the header is not sent"
                raise TransferError(text, retry=False, status=error.code) from error
            raise
    with response:
        yield response


@contextmanager
def network_errors() -> Iterator[None]:
    """Turn errors of URL, network and response into TransferErrors, whose messages quote neither URL nor response. Only
    for reads from the network, not for writes to disk."""
    try:
        yield
    except TransferError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        text = _status(error.code)
        text += ", a redirection that cannot be followed" if error.code // 100 == 3 else ""
        raise TransferError(text, retry=error.code in TRANSIENT, status=error.code) from error
    except TimeoutError as error:
        raise TransferError("sent nothing for longer than the time-out (downloads.timeout)", retry=True) from error
    except OSError as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise TransferError(" ".join(str(reason).split()), retry=True) from error
    except Exception as error:  # ValueError, UnicodeError, OverflowError, HTTPException and others, by response
        malformed = isinstance(error, http.client.HTTPException) and not isinstance(error, http.client.InvalidURL)
        what = "its response is not valid HTTP" if malformed else "the URL, or one that it redirects to, is not valid"
        raise TransferError(f"{what} ({type(error).__name__})", retry=malformed) from error


def _status(code: int) -> str:
    return f"HTTP status {code} ({http.client.responses.get(code, 'unknown')})"


def _expanded(header: str | None) -> dict[str, str]:
    if not header:
        return {}
    name, _, value = header.partition(":")
    unset = [variable for variable in re.findall(r"\$\{(\w+)\}", value) if variable not in os.environ]
    if unset:
        raise ValueError(
            f"downloads.imagenet.header: the environment variable {unset[0]} is not set; set it, or correct the header"
        )
    value = os.path.expandvars(value).strip()
    if not re.fullmatch(r"[\x20-\x7e\xa0-\xff]+", name + value):
        raise ValueError(
            "downloads.imagenet.header: with its variables expanded, it has a line break or characters that HTTP does "
            "not allow; give one line of Latin-1 characters"
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


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        newurl, credentials = _split_user(newurl)
        if urlsplit(newurl).scheme not in ("http", "https"):
            return None  # becomes an HTTPError
        moved = super().redirect_request(req, fp, code, msg, headers, newurl)
        assert moved is not None  # it raises HTTPError instead
        for name, value in credentials.items():
            moved.add_unredirected_header(name, value)
        return moved


class _Connections(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """http and https, where `pace` measures the time spent waiting for the responses, headers included."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self.pace = pace

    def do_open(self, http_class, req, **options):
        def connect(address, **arguments):
            connection = http_class(address, **arguments)
            connection.response_class = functools.partial(_Response, self.pace)
            return connection

        return super().do_open(connect, req, **options)


class _Response(http.client.HTTPResponse):
    def __init__(self, pace: Pace, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.fp = io.BufferedReader(_Timed(self.fp.detach(), pace))


class _Timed(io.RawIOBase):
    """The bytes of a socket. A time-out bounds each wait, `pace` all of them together."""

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
