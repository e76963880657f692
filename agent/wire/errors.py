"""The five kinds of error, and what each becomes at the edge of a process.

    LichenError
    ├── ConfigError   the operator's input is wrong; a restart will not help
    ├── LinkDown      the other side cannot be reached; try again later
    ├── Refused       the other side, or this one, said no, and says why
    ├── Busy          the same thing is being done already
    └── Corrupt       verification failed: stop, never repair silently

An error names the input, the reason and the way out: the message is one sentence, the
hint is what to do about it.  ``code`` is a stable slug for programs; it is what the hub's
API puts into the ``type`` of a problem document (RFC 9457, section 3.1.1).

>>> error = Refused("the token 'k7q2' expired 3 h ago", code="expired", hint="ask for a new one")
>>> str(error), error.code, error.hint
("the token 'k7q2' expired 3 h ago", 'expired', 'ask for a new one')
>>> exit_code(error), exit_code(ConfigError("no such key"))
(77, 78)
"""

from __future__ import annotations


class LichenError(Exception):
    """A failure that has been understood: one sentence, a code and a hint."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if code is not None:
            self.code = code


class ConfigError(LichenError):
    """Input by the operator (file, option, path) that cannot be used as it is."""

    code = "config"


class LinkDown(LichenError):
    """The other side could not be reached, or went away; trying again is right."""

    code = "link-down"


class Refused(LichenError):
    """A request or message was understood and declined; the code says why."""

    code = "invalid"


class Busy(LichenError):
    """Somebody else is doing this now; the message says who and since when."""

    code = "busy"


class Corrupt(LichenError):
    """A signature, checksum or invariant does not hold."""

    code = "corrupt"


# sysexits.h where it has a fitting code; 78 is what systemd must not restart.
EXIT_CODES: dict[type[LichenError], int] = {
    ConfigError: 78,
    LinkDown: 75,
    Refused: 77,
    Busy: 75,
    Corrupt: 65,
}


def exit_code(error: BaseException) -> int:
    """The exit status of a process that ends with ``error``; 1 for what nobody foresaw."""
    for kind, status in EXIT_CODES.items():
        if isinstance(error, kind):
            return status
    return 1
