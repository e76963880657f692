"""The board's certificate, renewed before it ends, and after that if the board was away for so long.

`agent.app` runs it beside the link.  A certificate is renewed at two thirds of its life and a
random moment of a day more, so that a fleet that joined together does not come together:

- with a certificate that is good, by showing it (``POST /renew`` over mutual TLS);
- with one that has ended, or that the broker does not accept, by the log key's signature over a
  challenge of the hub (``GET /renew``).

The TLS key stays, so one file is all there is to replace: whenever the power is cut, there is the
old certificate or the new one.  The answer is checked like one to joining before any of it is
kept.  The running session is not touched: a broker looks at certificates when they are shown.

Whether a certificate has ended is for the clock to say, and a board whose clock is not set asks
nobody: either the broker lets it in, and the hub tells it the time, or it does not, and that is
reason enough.  It never decides to join, and gives up nothing: it tries until the hub answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from urllib.parse import urlsplit

from agent.base.broker import backoff_s
from agent.clock import Clock
from agent.config import Config
from agent.identity import Identity, certificate_end_ms, read_document, trusting
from agent.wire import note
from agent.wire.decode import decode_json
from agent.wire.errors import LichenError, Refused
from agent.wire.joining import Challenge, RenewAnswer, RenewProof, RenewRequest
from agent.wire.messages import compose
from agent.wire.plain import dumps

log = logging.getLogger(__name__)

DAY_MS = 24 * 3_600_000
LIFE_MS = 90 * DAY_MS
"""How long a certificate is taken to be good for when nobody knows when it was given."""
LOOK_S = 6 * 3600.0
"""How often the calendar is looked at; less than the day that the moment is drawn from."""
LOOK_AGAIN_S = 600.0
"""The same while the clock is not set, which the hub does as soon as it is reached."""
HIGH_S = 3600.0
"""The longest pause between two attempts."""


class Renewal:
    """The certificate of one board.

    Ring ``wanted`` when the broker does not accept it; ``renewed`` rings when there is another.
    """

    def __init__(
        self,
        identity: Identity,
        config: Config,
        clock: Clock,
        *,
        ask: Callable[[Identity, Clock, bool], int] | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.wanted = asyncio.Event()
        self.renewed = asyncio.Event()
        self._identity = identity
        self._low_s = config.link.backoff_low_s
        self._clock = clock
        self._ask = ask or renew
        self._draw = draw
        self._drawn = draw()

    async def run(self) -> None:
        """Renew whenever it is time, until cancelled.

        Raises Corrupt or ConfigError for a damaged identity.
        """
        in_vain, renewed_s = 0, -HIGH_S
        while True:
            if not self.wanted.is_set() and not self.is_due():
                await self._wait(LOOK_S if self._clock.known_ms() is not None else LOOK_AGAIN_S)
                continue
            if _now_s() - renewed_s >= HIGH_S:
                in_vain = 0
            else:
                # A new one is not what was missing, if that is not accepted either.
                await asyncio.sleep(backoff_s(in_vain, low_s=self._low_s, high_s=HIGH_S, draw=self._draw))
                in_vain += 1
            await self._renew()
            self._drawn, renewed_s = self._draw(), _now_s()

    def is_due(self) -> bool:
        """Whether two thirds of the certificate's life are over, and this board's moment has come."""
        now_ms = self._clock.known_ms()
        given_ms, until_ms = self._identity.certificate()
        if given_ms is None or not until_ms - LIFE_MS * 40 < given_ms < until_ms:
            given_ms = until_ms - LIFE_MS
        third_ms = (until_ms - given_ms) // 3
        return now_ms is not None and now_ms >= until_ms - third_ms + self._drawn * min(DAY_MS, third_ms // 4)

    async def _renew(self) -> None:
        """Try until there is another certificate."""
        attempts, said, by_proof = 0, "", self.wanted.is_set()
        while True:
            now_ms = self._clock.known_ms()
            if now_ms is not None and now_ms >= self._identity.certificate_until_ms():
                by_proof = True
            try:
                until_ms = await asyncio.to_thread(self._ask, self._identity, self._clock, by_proof)
            except LichenError as error:
                # Whatever it is, the board is better off with what it has, and asks again.
                if str(error) != said:
                    said = str(error)
                    log.warning("certificate not renewed", extra={"error": said, "by_proof": by_proof})
                # A server that does not accept the one that is shown often hangs up without a word.
                by_proof = not by_proof
            else:
                log.info("certificate renewed", extra={"until_ms": until_ms, "by_proof": by_proof})
                self.wanted.clear()
                self.renewed.set()
                return
            await asyncio.sleep(backoff_s(attempts, low_s=self._low_s, high_s=HIGH_S, draw=self._draw))
            attempts += 1

    async def _wait(self, most_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self.wanted.wait()


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def renew(identity: Identity, clock: Clock, by_proof: bool) -> int:
    """Ask once, and keep what comes.  Blocks.  Returns when the new certificate ends, in ms.

    Raises LinkDown; Refused with the hub's own sentence, or code "certificate" when it does not
    accept the one that is shown; Corrupt for an answer that is not this hub's for this board.
    """
    from agent.https import MAX_ANSWER, connection, deadline_s, exchange  # once in months

    document, hub_key, until_s = identity.document(), identity.hub_key(), deadline_s()
    url, state = urlsplit(document.url), clock.state()
    context = trusting(document.ca_pem, state) if by_proof else identity.tls(document.ca_pem, state)
    path = f"{url.path.rstrip('/')}/renew"
    request = RenewRequest(identity.certificate_request())
    with connection(url, context, until_s) as hub:
        if by_proof:
            asked = decode_json(Challenge, exchange(hub, "GET", path), max_bytes=MAX_ANSWER)
            proof = RenewProof(hub_key.name, asked.challenge, identity.tls_public_key())
            signed = note.sign(compose("renew", proof), identity.log_key)
            request = RenewRequest(request.csr_pem, identity.board, signed)
        body = exchange(hub, "POST", path, dumps(request))
    answer = decode_json(RenewAnswer, body, max_bytes=MAX_ANSWER)
    announced = read_document(answer.hub_note, hub_key)
    newest = announced if announced.number > document.number else document
    identity.check_certificate(answer.certificate_pem, newest.ca_pem)
    ends_ms = certificate_end_ms(answer.certificate_pem)
    if ends_ms <= identity.certificate_until_ms():
        raise Refused("the hub's new certificate ends no later than ours", hint="is the hub's clock right?")
    identity.replace_document(answer.hub_note)
    identity.replace_certificate(answer.certificate_pem, clock.known_ms())
    return ends_ms
