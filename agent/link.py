"""The board's connection to its hub: says that the board is there, and comes back when it breaks.

`agent.app` runs it for as long as the process lives.  Failure is normal here: the link tries
again with back-off, and never ends by itself.  It keeps nothing that may not be lost: what is
to be sent lies in the outbox, and leaves it only by the hub's acknowledgement, never by the
broker's.

A session: connect, with a will that says "offline"; subscribe to what the hub says; presence
and about, retained; then, until the link breaks,

- `agent.inbox` reads,
- `agent.reports` sends readings,
- about is said again when something in it has changed, at most once a minute, and some times a
  day for the figures in it,
- and so are the apps, when there are any: at most each APPS_S, but for how a change has ended;
- the usage log goes to the hub.

Nothing polls: a quiet board wakes for a report, its two answers, and nothing else.  What is sent
and received is counted in `agent.traffic`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import agent
from agent.base.broker import Address, Connect, Message, Session, backoff_s
from agent.clock import Clock
from agent.config import Config
from agent.identity import Identity
from agent.inbox import Books, Desk, Inbox
from agent.outbox import Outbox
from agent.reports import Reports
from agent.status import LinkState
from agent.traffic import NOTE, Gauge
from agent.window import Window
from agent.wire import topics
from agent.wire.envelope import pack
from agent.wire.errors import LichenError, LinkDown, Refused
from agent.wire.joining import HubDocument
from agent.wire.messages import About, Live, OutboxState, Presence, Traffic
from agent.wire.plain import dumps

if TYPE_CHECKING:  # what only a board with apps needs
    from agent.wire.apps import Apps

log = logging.getLogger(__name__)

ABOUT_EVERY_S = 60.0
ABOUT_METERED_S = 600.0
NEWS_PART = 12
"""In this part of that time an about may say that a problem has begun or ended."""
ABOUT_AT_LATEST_S = 6 * 3600.0
"""After how long about is said again for what changes all the time, such as the traffic."""
LIVE_METERED_S = 10
"""The pace of live reports where each byte is paid: a fifth of those at 2 s."""
APPS_S, APPS_METERED_S = 2.0, 10.0
"""The pace of what is said of apps while they change."""
PASS_S = 2.0
"""How soon there are new readings when those that wait would keep the hub waiting."""
FAREWELL_S = 0.8
"""How long a stop may take to say goodbye."""
STEADY_S = 30.0
"""A session that lived so long was a good one: after it the back-off starts anew."""
WILL_DELAY_S = 60
"""Who is back within this time was never gone for anybody else."""

Online = Literal["online", "offline"]


class Link:
    """The link of one board.

    ``describe`` makes the about message; ring ``changed`` when it may say something else.
    It is said at most once in ``about_every_s``, but for problems that begin or end.  ``tell``
    is called whenever ``state`` has changed, and after each acknowledgement.
    ``hurry(every_s, for_s)`` asks the sampler for readings at that pace.  ``uncertified`` is called
    when the broker does not accept our certificate; ``again`` rings when there is a reason to try
    at once.  ``desk`` takes orders, and tells of apps; ``books`` sync the usage log.
    """

    def __init__(
        self,
        identity: Identity,
        outbox: Outbox,
        config: Config,
        clock: Clock,
        *,
        connect: Connect,
        describe: Callable[[], Awaitable[About]],
        tell: Callable[[LinkState], None],
        hurry: Callable[[float, float], None] = lambda every_s, for_s: None,
        uncertified: Callable[[], None] = lambda: None,
        again: asyncio.Event | None = None,
        desk: Desk | None = None,
        books: Books | None = None,
        draw: Callable[[], float] = random.random,
        about_every_s: float | None = None,
        apps_every_s: float | None = None,
    ) -> None:
        self.changed = asyncio.Event()
        self._again = again or asyncio.Event()
        self.state = LinkState("connecting", clock.wall_ms())
        self._identity = identity
        self._outbox = outbox
        self._config = config
        self._clock = clock
        self._connect = connect
        self._describe = describe
        self._tell = tell
        self._hurry = hurry
        self._uncertified = uncertified
        self._desk = desk
        self._books = books
        self._draw = draw
        self._metered = config.report.profile == "metered"
        quiet_s = ABOUT_METERED_S if self._metered else ABOUT_EVERY_S
        self._about_every_s = quiet_s if about_every_s is None else about_every_s
        pace_s = APPS_METERED_S if self._metered else APPS_S
        self._apps_every_s = pace_s if apps_every_s is None else apps_every_s
        self._session: Session | None = None
        self._gauge = Gauge(clock, outbox.recall(NOTE), lambda text: outbox.remember(NOTE, text))
        self._refused: dict[str, str] = {}

    @property
    def traffic(self) -> Traffic:
        """What the link has used today."""
        if self._session is not None:
            self._gauge.count(self._session.traffic())
        return self._gauge.today()

    async def run(self) -> None:
        """Keep the link up until cancelled.  Raises Corrupt or ConfigError for a damaged identity."""
        try:
            await self._keep_up()
        finally:
            self._gauge.write()

    async def _keep_up(self) -> None:
        settings, attempts = self._config.link, 0
        while True:
            began_s = _now_s()
            try:
                await self._hold_session()
            except (LinkDown, Refused) as error:
                if _is_stopping():
                    raise asyncio.CancelledError from error  # told to stop while the link broke
                if _now_s() - began_s >= STEADY_S:
                    attempts = 0
                self._lost(error, attempts + 1)
            low_s, high_s = settings.backoff_low_s, settings.backoff_high_s
            self._again.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff_s(attempts, low_s=low_s, high_s=high_s, draw=self._draw)):
                    await self._again.wait()
            attempts += 1

    async def _hold_session(self) -> None:
        """One connection, until it ends.  Raises LinkDown, Refused."""
        document = self._identity.document()
        nonce = secrets.token_hex(8)
        address = self._address(document, nonce)
        self._set(broker=str(address))
        try:
            async with self._connect(address) as session:
                self._gauge.begin()
                self._session = session
                try:
                    await self._converse(session, document, nonce)
                except asyncio.CancelledError:
                    with contextlib.suppress(TimeoutError, LinkDown, Refused):
                        async with asyncio.timeout(FAREWELL_S):
                            await session.publish(self._presence("offline", nonce))
                    raise
        finally:
            if self._session is not None:
                self._set(traffic=self.traffic)
                self._session = None

    async def _converse(self, session: Session, document: HubDocument, nonce: str) -> None:
        async def publish(message: Message) -> bool:
            return await self._publish(session, message)

        settings, every = self._config.link, self._config.report
        reports = Reports(
            self._outbox,
            Window(size=settings.window, resend_s=settings.resend_s, high_s=settings.backoff_high_s),
            topic=topics.up(self._identity.board, "readings"),
            publish=publish,
            hold_s=every.every_s if every.commit_every_s < every.every_s else 0,
            parted=lambda: self._hurry(PASS_S, 2 * PASS_S),
        )

        def live(order: Live) -> Live:
            every_s = max(order.every_s, LIVE_METERED_S) if self._metered else order.every_s
            reports.hurry(every_s, order.for_s)
            self._hurry(every_s, order.for_s)
            return Live(order.for_s, every_s)

        inbox = Inbox(
            self._identity,
            document,
            nonce,
            self._clock,
            reports=reports,
            publish=publish,
            tell=self._heard,
            live=live,
            desk=self._desk,
            books=self._books,
        )

        async def describe(about: About) -> bool:
            inbox.asked_ms = self._clock.mono_ms()  # a hub that is told that we do not know the time tells it
            return await publish(self._up("about", about))

        await session.subscribe(topics.down_all(self._identity.board))
        await session.publish(self._presence("online", nonce))
        about = await self._about()
        is_said = await describe(about)
        self._found()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(reports.run(), name="link reports")
                said = about if is_said else None
                group.create_task(self._keep_described(describe, said), name="link about")
                if self._desk is not None:
                    group.create_task(self._keep_reported(publish, self._desk), name="link apps")
                if self._books is not None:
                    group.create_task(self._books.keep(publish), name="link usage")
                # Here and not as a task: with Python 3.11 a group that fails while its parent only
                # waits for it leaves the parent looking as if it had been told to stop.
                await inbox.read(session.messages(), group)
        except BaseExceptionGroup as failures:
            expected, unexpected = failures.split((LinkDown, Refused))
            if unexpected is not None:
                raise
            raise _first(expected) from None

    async def _keep_described(self, publish: Callable[[About], Awaitable[bool]], said: About | None) -> None:
        """Say what has changed about the board, at once after a quiet minute; and what was refused again."""
        while True:
            waits_s = self._about_every_s if said is None else ABOUT_AT_LATEST_S
            try:
                async with asyncio.timeout(waits_s):
                    await self.changed.wait()
            except TimeoutError:
                said = None
            self.changed.clear()
            about = await self._about()
            if said is None or _lasting(about) != _lasting(said):
                said = about if await publish(about) else None
                await self._rest(said)

    async def _rest(self, said: About | None) -> None:
        """Say nothing for a while; less long when a problem begins or ends: somebody may wait for it."""
        news_s = self._about_every_s / NEWS_PART
        await asyncio.sleep(news_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._about_every_s - news_s):
                while said is None or _wrong(await self._about()) == _wrong(said):
                    self.changed.clear()
                    await self.changed.wait()
        self.changed.set()  # what else has changed meanwhile

    async def _keep_reported(self, publish: Callable[[Message], Awaitable[bool]], desk: Desk) -> None:
        """Say how apps are, in each session at once, and then whenever that has changed."""
        said: Message | None = None
        while True:
            desk.changed.clear()
            apps = desk.report()
            message = None if apps is None else self._up("apps", apps)
            if message is not None and message != said:
                said = message if await publish(message) else None
                await self._pause(desk, apps)
            await desk.changed.wait()

    async def _pause(self, desk: Desk, said: Apps | None) -> None:
        """Say nothing for a while; less long when an app has come up, failed or gone: that is waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._apps_every_s):
                while _states(desk.report()) == _states(said):
                    desk.changed.clear()
                    await desk.changed.wait()
        desk.changed.set()  # what else has changed meanwhile

    async def _about(self) -> About:
        return replace(await self._describe(), traffic=self.traffic)

    async def _publish(self, session: Session, message: Message) -> bool:
        """Send a message; a refusal is noted for its kind until one is taken again."""
        leaf = topics.parse(message.topic).leaf  # replies have a topic each
        try:
            await session.publish(message)
        except Refused as error:
            if leaf not in self._refused:
                log.warning("message refused", extra={"topic": message.topic, "error": str(error)})
            self._refused[leaf] = str(error)
            self._set(refused=str(error))
            return False
        if self._refused.pop(leaf, None) is not None:
            log.info("message accepted again", extra={"topic": message.topic})
            self._set(refused=next(iter(self._refused.values()), ""))
        return True

    # --- what is said

    def _address(self, document: HubDocument, nonce: str) -> Address:
        board = self._identity.board
        return Address(
            client_id=board,
            host=document.mqtt_host,
            port=document.mqtt_port,
            tls=self._identity.tls(document.ca_pem, self._clock.state()),
            username=board,
            keepalive_s=self._config.link.keepalive_s,
            # A will waits only as long as its session lives (MQTT 5.0, section 3.1.3.2.2).
            clean_start=False,
            session_expiry_s=WILL_DELAY_S,
            will=self._presence("offline", nonce),
            will_delay_s=WILL_DELAY_S,
        )

    def _presence(self, state: Online, nonce: str) -> Message:
        presence = Presence(state, nonce, self._clock.boot, self._clock.wall_ms(), agent.__version__)
        return self._up("presence", presence)

    def _up(self, leaf: str, message: object) -> Message:
        payload, content_type = pack(dumps(message))
        return Message(topics.up(self._identity.board, leaf), payload, retain=True, content_type=content_type)

    # --- how it is

    def _set(self, **changes: object) -> None:
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]
        self._tell(self.state)

    def _found(self) -> None:
        log.info("link is up", extra={"broker": self.state.broker})
        self._set(state="online", since_ms=self._clock.wall_ms(), error="", hint="", attempts=0)

    def _lost(self, error: LichenError, attempts: int) -> None:
        since_ms = self.state.since_ms if self.state.state == "offline" else self._clock.wall_ms()
        if self.state.error != str(error):
            log.warning("link is down", extra={"broker": self.state.broker, "error": str(error)})
        self._set(state="offline", since_ms=since_ms, error=str(error), hint=error.hint, attempts=attempts)
        if error.code == "certificate":
            self._uncertified()

    def _heard(self) -> None:
        """The hub acknowledged."""
        self._set(acknowledged_ms=self._clock.wall_ms(), traffic=self.traffic)


def _wrong(about: About) -> list[tuple[str, str]]:
    """What is wrong with a board, without the figures in it."""
    return [(problem.code, problem.severity) for problem in about.problems]


def _lasting(about: About) -> About:
    """An about without what changes all the time: of the outbox only what was lost is news."""
    return replace(about, outbox=OutboxState(dropped=about.outbox.dropped), traffic=Traffic())


def _states(apps: Apps | None) -> list[tuple[object, ...]]:
    """Of each app what it is in, without how far it is."""
    found = () if apps is None else apps.apps
    return [(each.name, each.state, each.running, each.failure) for each in found]


def _first(group: BaseExceptionGroup[LichenError] | None) -> LichenError:
    """The first single error in a group."""
    error: BaseException | None = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, LichenError)
    return error


def _is_stopping() -> bool:
    """Whether this task was cancelled.  A group that fails at that moment does not tell."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _now_s() -> float:
    return asyncio.get_running_loop().time()
