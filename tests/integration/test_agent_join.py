"""A board joins over HTTPS: the way it should be, every cut, and every way to be fooled.

The other side is a web server that says what a test wants; the real hub's rules are in
test_joining, and both together in test_bad_days.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import tomli_w

from agent.app import Agent, join_or_load
from agent.clock import Clock
from agent.config import Config, Link, Report
from agent.identity import Identity, open_identity
from agent.join import is_new, join, join_again, read_join_file, token_hash
from agent.sensors.driver import read_sensor
from agent.status import read_status
from agent.wire import note
from agent.wire.decode import decode_json
from agent.wire.errors import ConfigError, Corrupt, LichenError, Refused
from agent.wire.joining import JoinProof, JoinRequest
from agent.wire.messages import read_text
from agent.wire.plain import dumps
from fakes.broker import FakeBroker, lichen_rule
from support.homehub import TOKEN, Answer, HomeHub, Page, Website, website

QUICK = {"low_s": 0.01, "high_s": 0.05}


@dataclass
class Field:
    """A board with a join file in its state directory, and the hub's web server."""

    identity: Identity
    hub: HomeHub
    site: Website
    path: Path

    def write(self, **lies: str) -> None:
        self.path.write_text(tomli_w.dumps(self.hub.join_file(self.site.url, **lies)))

    async def join(self) -> None:
        await join(self.identity, self.path, Clock.system(), **QUICK)

    async def join_again(self) -> bool:
        """Try the file beside a running link, and take what comes."""
        admission = await join_again(self.identity, self.path, Clock.system(), **QUICK)
        if admission is not None:
            admission.keep(Clock.system())
        return admission is not None

    async def fails(self, kind: type[LichenError]) -> LichenError:
        """Join in vain; nothing of it is kept, and the join file stays."""
        with pytest.raises(kind) as caught:
            await self.join()
        assert self.identity.membership() is None
        assert self.path.exists()
        return caught.value

    @property
    def posted(self) -> list[JoinRequest]:
        """The requests to join that came."""
        bodies = [body for asked, body in self.site.requests if asked == "POST /join"]
        return [decode_json(JoinRequest, body, max_bytes=100_000) for body in bodies]


@pytest.fixture
async def field(tmp_path: Path) -> AsyncIterator[Field]:
    hub = HomeHub(tmp_path / "hub")
    identity = open_identity(tmp_path / "state")
    pages = {
        "GET /ca.pem": (200, hub.authority.ca_pem.encode()),
        "POST /join": lambda _: (200, dumps(hub.answer(identity))),
    }
    with website(hub.authority.server_context(), pages) as site:
        field = Field(identity, hub, site, tmp_path / "state" / "join.toml")
        field.write()
        yield field


def problem(status: int, code: str, detail: str, hint: str = "") -> Answer:
    document = {"type": f"urn:lichen:problem:{code}", "title": "No", "detail": detail, "hint": hint}
    return status, json.dumps(document).encode()


# --- the way it should be ------------------------------------------------------------------------


async def test_a_board_joins_and_the_join_file_is_gone(field: Field) -> None:
    await field.join()
    membership = field.identity.membership()
    assert membership is not None
    assert (membership.name, membership.token_sha256) == ("pump", token_hash(TOKEN))
    assert field.identity.document().hub == field.hub.keys.hub
    assert not field.path.exists()


async def test_the_proof_binds_keys_hub_and_token(field: Field) -> None:
    await field.join()
    (request,) = field.posted
    proof = read_text("join", JoinProof, note.open_note(request.proof, note.Verifier.parse(request.log_key)))
    assert proof == JoinProof(
        field.hub.keys.hub, token_hash(TOKEN), field.identity.tls_public_key(), request.seal_key
    )
    assert TOKEN not in request.proof


async def test_a_join_file_may_be_json(field: Field) -> None:
    field.path.write_text(json.dumps(field.hub.join_file(field.site.url)))
    await field.join()


async def test_a_join_file_from_a_windows_editor_is_read(field: Field) -> None:
    text = field.path.read_text().replace("\n", "\r\n")
    field.path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    await field.join()


# --- cuts ----------------------------------------------------------------------------------------


async def test_a_lost_answer_is_asked_for_again_with_the_same_keys(field: Field) -> None:
    answers = iter([(0, b""), (200, dumps(field.hub.answer(field.identity)))])
    field.site.pages["POST /join"] = lambda _: next(answers)
    await field.join()
    first, second = field.posted
    assert (first.token, first.log_key, first.seal_key) == (second.token, second.log_key, second.seal_key)


@pytest.mark.parametrize("written", ["hub.key", "hub.note", "tls.pem", "board.toml"])
async def test_a_cut_after_any_write_is_continued_by_the_next_start(field: Field, written: str) -> None:
    text = field.path.read_text()
    await field.join()
    names = ["hub.key", "hub.note", "tls.pem", "board.toml"]
    for name in names[names.index(written) + 1 :]:
        (field.identity.directory / name).unlink()
    field.path.write_text(text)
    identity = open_identity(field.identity.directory)
    config = Config(state_dir=field.path.parent, join_file=field.path, link=Link(backoff_low_s=0.01))
    membership = await join_or_load(identity, config, Clock.system())
    assert membership == identity.membership()
    assert identity.document().number == 1
    if written == "board.toml":
        assert not is_new(membership, field.path)
    assert not field.path.exists()
    # Once board.toml was there all was done but for the removal.
    assert len(field.posted) == (1 if written == "board.toml" else 2)


async def test_a_hub_that_is_not_up_yet_is_waited_for(field: Field, caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([(503, b""), (503, b""), (429, b""), (200, field.hub.authority.ca_pem.encode())])
    field.site.pages["GET /ca.pem"] = lambda _: next(answers)
    await field.join()
    said = [record.message for record in caplog.records]
    assert said.count("hub not reached, trying again") == 2  # two reasons, three failures


async def test_waiting_for_a_hub_can_be_cancelled(field: Field) -> None:
    field.write(hub_url="https://127.0.0.1:9")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await field.join()


# --- the hub says no ------------------------------------------------------------------------------


async def test_the_hubs_own_sentence_ends_it(field: Field) -> None:
    field.site.pages["POST /join"] = problem(
        410, "expired", "this join token expired 3 h ago", "make a new one"
    )
    error = await field.fails(Refused)
    assert (str(error), error.code, error.hint) == (
        "this join token expired 3 h ago",
        "expired",
        "make a new one",
    )
    assert len(field.posted) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"detail": 5}'])
async def test_a_refusal_without_a_sentence_names_the_status(field: Field, body: bytes) -> None:
    field.site.pages["POST /join"] = (403, body)
    assert "HTTP status 403" in str(await field.fails(Refused))


# --- somebody else answers -------------------------------------------------------------------------


async def test_another_authority_gets_no_token(field: Field, tmp_path: Path) -> None:
    stranger = HomeHub(tmp_path / "stranger")
    field.site.pages["GET /ca.pem"] = (200, stranger.authority.ca_pem.encode())
    error = await field.fails(Corrupt)
    assert "another certificate authority" in str(error)
    assert not field.posted


async def test_the_right_authority_shown_by_a_stranger_gets_no_token(field: Field, tmp_path: Path) -> None:
    stranger = HomeHub(tmp_path / "stranger")
    pages = {"GET /ca.pem": (200, field.hub.authority.ca_pem.encode())}
    with website(stranger.authority.server_context(), pages) as site:
        field.write(hub_url=site.url)
        error = await field.fails(Corrupt)
    assert "does not hold" in str(error)
    assert [asked for asked, _ in site.requests] == ["GET /ca.pem"]


async def test_a_certificate_for_another_host_gets_no_token(field: Field) -> None:
    context = field.hub.authority.server_context()
    with website(context, field.site.pages, host="127.0.0.2") as site:
        field.write(hub_url=site.url)
        assert "hub_url" in (await field.fails(Corrupt)).hint
    assert not field.posted


LIES: dict[str, Callable[[Field, HomeHub, Identity], dict[str, str]]] = {
    "another board": lambda field, stranger, other: {"board": other.board},
    "the document of another hub": lambda field, stranger, other: {"hub_note": stranger.document()},
    "a document by the order key": lambda field, stranger, other: {
        "hub_note": field.hub.document(signer=field.hub.keys.order)
    },
    "a certificate for another key": lambda field, stranger, other: {
        "certificate_pem": certificate(field.hub, other, field.identity.board)
    },
    "a certificate for another board": lambda field, stranger, other: {
        "certificate_pem": certificate(field.hub, field.identity, other.board)
    },
    "a certificate by another authority": lambda field, stranger, other: {
        "certificate_pem": certificate(stranger, field.identity, field.identity.board)
    },
    "no certificate": lambda field, stranger, other: {"certificate_pem": "-----BEGIN"},
}


def certificate(hub: HomeHub, keys: Identity, board: str) -> str:
    """One by ``hub``, in the name of ``board``, for the TLS key of ``keys``."""
    return hub.authority.issue(board, keys.certificate_request(), 1_700_000_000_000).pem


@pytest.mark.parametrize("lie", LIES)
async def test_a_false_answer_is_not_kept(field: Field, tmp_path: Path, lie: str) -> None:
    lies = LIES[lie](field, HomeHub(tmp_path / "stranger"), open_identity(tmp_path / "other"))
    field.site.pages["POST /join"] = (200, dumps(field.hub.answer(field.identity, **lies)))
    await field.fails(Corrupt)


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"x" * 300_000], ids=["empty", "{}", "null", "huge"])
async def test_an_answer_that_is_none_is_refused(field: Field, body: bytes) -> None:
    field.site.pages["POST /join"] = (200, body)
    await field.fails(Refused)


# --- the join file ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "hub_url"),
        ("hub_url = ", "Invalid value"),
        ("{", "column"),
        ("\x00\xff", "x.toml"),
        ('hub_url = "https://h"\nhub_key = "k"\nca_sha256 = "zz"\ntoken = "0123456789abcdef"', "ca_sha256"),
        ("x" * 70_000, "over 65536 bytes"),
    ],
)
def test_garbage_in_the_join_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        read_join_file(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert "lichen token new" in caught.value.hint


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hub_url", "http://hub:8421"),
        ("hub_url", "hub"),
        ("hub_url", "https://hub:port"),
        ("hub_url", "https://hub..example:8421"),
        ("hub_key", "north+00000000+AAAA"),
        ("token", "short"),
        ("tokn", "0123456789abcdef"),
    ],
)
async def test_a_wrong_key_in_the_join_file_is_named(field: Field, key: str, value: str) -> None:
    field.write(**{key: value})
    assert key in str(await field.fails(ConfigError))
    assert not field.site.requests


# --- joining again -----------------------------------------------------------------------------------


async def test_a_new_token_makes_a_board_join_again(field: Field) -> None:
    await field.join()
    field.hub.config = type(field.hub.config)(name="moved", mqtt_port=9999)
    field.write(token="n" * 26)
    assert await field.join_again()
    assert field.identity.document().mqtt_port == 9999
    assert not field.path.exists()


@pytest.mark.parametrize("text", ["garbage", ""])
async def test_a_bad_join_file_does_not_take_a_joined_board_off_the_net(field: Field, text: str) -> None:
    await field.join()
    if text:
        field.path.write_text(text)
    else:
        field.write(token="n" * 26)
        field.site.pages["POST /join"] = problem(403, "forbidden", "no such token")
    before = field.identity.membership()
    assert not await field.join_again()
    assert field.identity.membership() == before
    assert field.path.exists()


async def test_a_second_hub_is_tried_beside_the_running_link_until_it_answers(
    field: Field, tmp_path: Path
) -> None:
    await field.join()
    other = HomeHub(tmp_path / "other")
    broker, is_up = FakeBroker(allow=lichen_rule), False
    pages: dict[str, Page] = {
        "GET /ca.pem": lambda _: (200, other.authority.ca_pem.encode()) if is_up else (503, b""),
        "POST /join": lambda _: (200, dumps(other.answer(field.identity, name="moved"))),
    }
    config = Config(
        state_dir=field.path.parent,
        runtime_dir=tmp_path / "run",
        join_file=field.path,
        report=Report(every_s=0.1, commit_every_s=0.1),
        link=Link(backoff_low_s=0.01, backoff_high_s=0.05),
        sensors=(read_sensor({"name": "load", "kind": "capacity", "interval_s": 0.1}, "sensors[0]"),),
    )

    def births() -> int:
        return sum(message.topic.endswith("/presence") for message in broker.log)

    def name() -> str:
        status = read_status(config.runtime_dir)
        return status.name if status else ""

    with website(other.authority.server_context(), pages) as site:
        file = {**other.join_file(site.url), "token": "n" * 26}
        field.path.write_text(tomli_w.dumps(file))
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            agent = group.create_task(Agent(config, Clock.system(), broker.connect).run(), name="agent")
            # It is tried again and again, while the link to the first hub is up and reports.
            while len(site.requests) < 5 or len(broker.log) < 5 or name() != "pump":
                await asyncio.sleep(0.01)
            assert births() == 1
            is_up = True
            while name() != "moved":
                await asyncio.sleep(0.01)
            said = len(broker.log)
            while len(broker.log) < said + 3:  # and it goes on
                await asyncio.sleep(0.01)
            agent.cancel()
    assert field.identity.document().hub == other.keys.hub
    assert not field.path.exists()
