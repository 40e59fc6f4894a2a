"""Who may ask: those with a key, where there are keys, and no page of another site in a browser on this machine."""

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from bertjax.errors import BertjaxError
from bertjax.serving.errors import Refused
from bertjax.serving.extra import needed

with needed():
    from starlette.requests import Request

_SHORTEST = 16  # characters of a key


class Guard:
    """Refuses requests.

    Args:
      keys: of which a request must have one, as `Authorization: Bearer KEY`; where there are none, none is needed.
      origins: other sites whose pages may ask, such as "https://example.org".

    Attributes:
      keys: whether one is needed.
    """

    def __init__(self, keys: Sequence[str] = (), origins: Sequence[str] = ()):
        self._digests = [_digest(key) for key in keys]
        self.keys = bool(keys)
        self._origins = set(origins)

    def __call__(self, request: Request) -> None:
        """Raises Refused where a request may not come in."""
        origin = request.headers.get("origin")
        # A page of any site can send requests to this machine, under a name of its own that it lets point here, too.
        if origin is not None and origin not in self._origins and not is_loopback(urlsplit(origin).hostname or ""):
            raise Refused(
                403, f"pages of {origin[:100]} may not ask; the server is told by --allow-origin which may", "forbidden"
            )
        if not self._digests:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        given = _digest(key.strip() if scheme.lower() == "bearer" else "")
        # All are compared, each in constant time: how long it takes tells nothing of them.
        if not sum([hmac.compare_digest(given, known) for known in self._digests]):
            raise Refused(
                401,
                "a key is needed: Authorization: Bearer KEY",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def is_loopback(host: str) -> bool:
    """Returns whether a name or address is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_keys(path: Path) -> list[str]:
    """Returns the keys of a file, one a line; empty lines and those that begin with # are none.

    Raises:
      BertjaxError: it cannot be read, has none, or one is too short to be a secret.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BertjaxError(f"--api-key-file {path} cannot be read: {error}; give a text file") from None
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise BertjaxError(f"--api-key-file {path} has no key; write one a line")
    if short := [number for number, key in enumerate(keys, 1) if len(key) < _SHORTEST or not key.isascii()]:
        raise BertjaxError(
            f"--api-key-file {path}: key {short[0]} is not {_SHORTEST} ASCII characters or more; make one, such as by "
            "'openssl rand -hex 32'"
        )
    return keys


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
