"""What Podman says, read: with words that Podman 4.3.1 was heard to say, and those of 5 by its documents."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.containers import answers
from agent.containers.engine import Thing
from agent.wire.apps import LogLine, Progress
from agent.wire.errors import LinkDown, Refused

IMAGE = "r.example/web@sha256:" + "0" * 64


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said", "code"),
    [
        (500, 'the container name "c1" is already in use by 67. You have to remove it', "exists"),
        (409, "network name n1 already used: network already exists", "exists"),
        (500, "volume with name v1 already exists: volume already exists", "exists"),
        (500, "s1: secret name in use", "exists"),
        (500, 'container 67 is already connected to network "n1": network is already connected', "exists"),
        (500, "subnet 10.5.0.0/24 is already used on the host or by another config", "in-use"),
        (500, '"n1" has associated containers with it. Use -f: network is being used', "in-use"),
        (409, "volume v1 is being used by the following container(s): 67: volume is being used", "in-use"),
        (409, "image used by 6f: image is in use by a container: consider force-removing image", "in-use"),
        (500, "localhost/nope:1: image not known", "not-found"),
        (404, "unable to find network with name or ID nope: network not found", "not-found"),
        (500, 'no secret with name or id "nope": no such secret', "not-found"),
        (404, 'no container with name or ID "nope" found: no such container', "not-found"),
        (409, "container 6f is not running", "not-running"),
        (500, "6f must be in Created or Stopped state: container state improper", "not-running"),
        (409, "container 6f has no defined healthcheck", "no-check"),
        (500, "layer not known", "image"),
        (500, "committing: write /var/lib/x: no space left on device", "no-space"),
        (500, "listen tcp4 :18080: bind: address already in use", "port-taken"),
        (500, "error setting rlimit type 7: operation not permitted: OCI permission denied", "denied"),
        (500, "something that nobody has heard of", "engine"),
        (404, "", "not-found"),
    ],
)
def test_a_refusal_has_the_code_of_its_reason(status: int, said: str, code: str) -> None:
    error = answers.refusal(
        "making web", status, json.dumps({"cause": "x", "message": said, "response": status})
    )
    assert isinstance(error, Refused)
    assert error.code == code
    assert str(error).startswith("making web: ")


def test_a_port_is_named_with_its_protocol() -> None:
    for said, port in (
        ("cannot listen on the TCP port: listen tcp4 :80: bind: address already in use", "80/tcp"),
        ("cannot listen on the UDP port: listen udp4 127.0.0.1:53: bind: address already in use", "53/udp"),
        ("listen tcp6 [::1]:8080: bind: address already in use", "8080/tcp"),
    ):
        error = answers.refusal("starting web", 500, said)
        assert str(error) == f"starting web: port {port} is taken by another program"


@pytest.mark.parametrize("text", ["", "<html>", "[1]", '"words"', '{"other": 1}', "\x00"])
def test_an_answer_that_says_nothing_is_a_refusal_all_the_same(text: str) -> None:
    error = answers.refusal("making web", 500, text)
    assert error.code == "engine"
    assert str(error) != "making web: "


@pytest.mark.parametrize(
    ("said", "code", "kind"),
    [
        ("initializing source docker://r/x@sha256:0: in r/x: manifest unknown", "image", Refused),
        ('Get "http://r/v2/": dial tcp 127.0.0.1:1: connect: connection refused', "registry", LinkDown),
        ('Get "http://r/v2/": dial tcp: lookup r on 10.0.0.1:53: no such host', "registry", LinkDown),
        ("invalid status code from registry 503 (Service Unavailable)", "registry", LinkDown),
        ("reading blob sha256:0: unexpected EOF", "registry", LinkDown),
        ('Get "https://r/v2/": net/http: TLS handshake timeout', "registry", LinkDown),
        ("toomanyrequests: You have reached your pull rate limit", "registry", LinkDown),
        ("reading manifest sha256:0 in r/x: unauthorized: authentication required", "denied", Refused),
        ("Requesting bearer token: invalid status code from registry 403 (Forbidden)", "denied", Refused),
        ('storing blob to file "/var/tmp/storage/1": no space left on device', "no-space", Refused),
        ('no image found in image index for architecture arm64, variant "v8"', "image", Refused),
        (
            'writing blob: storing blob to file "/1": happened during read: Digest did not match, expected 0',
            "image",
            Refused,
        ),
        ('Get "https://r/v2/": http: server gave HTTP response to HTTPS client', "image", Refused),
        ("a thing nobody has heard of", "image", Refused),
    ],
)
def test_a_pull_fails_for_its_reason(said: str, code: str, kind: type) -> None:
    error = answers.pull_failure(IMAGE, said)
    assert (type(error), error.code) == (kind, code)
    assert str(error).startswith(f"{IMAGE} cannot be had: ")
    assert "initializing source" not in str(error)
    assert "storing blob" not in str(error)
    assert bool(error.hint) == (code == "denied" or "gave HTTP response" in said)


# --- pulls -------------------------------------------------------------------------------------


def said_in_order(*lines: dict[str, Any]) -> tuple[answers.PullWords, list[Progress]]:
    words = answers.PullWords()
    told = [words.read(json.dumps(line).encode()) for line in lines]
    return words, [progress for progress in told if progress is not None]


def test_podman_4_names_the_layers_that_it_begins() -> None:
    words, told = said_in_order(
        {"stream": "Trying to pull r.example/web...\n"},
        {"stream": "Getting image source signatures\n"},
        {"stream": "Copying blob sha256:1\n"},
        {"stream": "Copying blob sha256:2\n"},
        {"stream": "Copying config sha256:3\n"},
        {"images": ["3"], "id": "3"},
    )
    assert words.error == ""
    assert told == [Progress(0, 0, "layers"), Progress(1, 0, "layers"), Progress(2, 2, "layers")]


def test_podman_5_counts_the_bytes_of_each_layer() -> None:
    words, told = said_in_order(
        {"status": "Pulling fs layer", "progressDetail": {}, "id": "aa"},
        {"status": "Downloading", "progressDetail": {"current": 10, "total": 100}, "id": "aa"},
        {"status": "Downloading", "progressDetail": {"current": 5, "total": 50}, "id": "bb"},
        {"status": "Downloading", "progressDetail": {"current": 100, "total": 100}, "id": "aa"},
        {"status": "Download complete", "progressDetail": {}, "id": "aa"},
    )
    assert words.error == ""
    assert told == [Progress(10, 100, "By"), Progress(15, 150, "By"), Progress(105, 150, "By")]


@pytest.mark.parametrize(
    "line",
    [{"error": "manifest unknown"}, {"errorDetail": {"message": "manifest unknown"}, "progressDetail": {}}],
)
def test_an_error_is_a_line_like_any_other(line: dict[str, Any]) -> None:
    words, told = said_in_order({"stream": "Trying to pull\n"}, line)
    assert (words.error, told) == ("manifest unknown", [])


@pytest.mark.parametrize(
    "line", [b"", b"\xff", b"5", b"[]", b"null", b'{"stream": null}', b'{"errorDetail": 5}']
)
def test_what_is_no_word_of_podman_is_passed_over(line: bytes) -> None:
    words = answers.PullWords()
    assert words.read(line) is None
    assert words.error == ""


# --- logs --------------------------------------------------------------------------------------


def frame(stream: int, text: str) -> bytes:
    data = text.encode()
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


STAMP = "2026-11-28T21:22:28Z "
AT_MS = 1_795_900_948_000


def test_each_frame_is_a_line_with_its_stream_and_time() -> None:
    body = frame(1, f"{STAMP}out\n") + frame(2, f"{STAMP}err \n")
    body += frame(1, "2026-11-28T21:22:28.123456789+01:00 later\n")
    assert answers.read_log([body]) == [
        LogLine("", AT_MS, "stdout", "out"),
        LogLine("", AT_MS, "stderr", "err "),
        LogLine("", AT_MS - 3_600_000 + 123, "stdout", "later"),
    ]


def test_a_line_in_parts_becomes_whole_beside_another_stream() -> None:
    body = frame(1, f"{STAMP}one ") + frame(2, f"{STAMP}err\n") + frame(1, f"{STAMP}line\n")
    body += frame(1, f"{STAMP}next\n")
    assert [(line.stream, line.text) for line in answers.read_log([body])] == [
        ("stdout", "one line"),
        ("stderr", "err"),
        ("stdout", "next"),
    ]


def test_a_terminal_has_no_frames() -> None:
    body = f"{STAMP}one\r\n{STAMP}two\r\n".encode()
    assert answers.read_log([body]) == [
        LogLine("", AT_MS, "stdout", "one"),
        LogLine("", AT_MS, "stdout", "two"),
    ]


def test_lines_without_a_time_and_long_ones_are_kept_as_far_as_there_is_room() -> None:
    assert answers.read_log([frame(1, "words without time\n")]) == [
        LogLine("", None, "stdout", "words without time")
    ]
    [line] = answers.read_log([frame(1, STAMP + "x" * 20_000 + "\n")])
    assert len(line.text) == answers.MAX_TEXT
    assert answers.read_log([]) == answers.read_log([b""]) == []
    cut = frame(1, f"{STAMP}whole\n") + frame(1, f"{STAMP}cut off\n")[:-4]
    assert [line.text for line in answers.read_log([cut])] == ["whole", "cut "]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.booleans())
def test_it_does_not_matter_in_which_pieces_a_log_comes(sizes: list[int], is_terminal: bool) -> None:
    body = frame(1, f"{STAMP}one ") + frame(2, f"{STAMP}ärger\n") + frame(1, f"{STAMP}line\n") + frame(1, "")
    expected = ["one line", "ärger"]
    if is_terminal:
        body = f"{STAMP}one\r\n{STAMP}zwölf\n\n{STAMP}cut".encode()
        expected = ["one", "zwölf", "", "cut"]
    ends = itertools.takewhile(lambda end: end < len(body), itertools.accumulate(itertools.cycle(sizes)))
    pieces = [body[start:end] for start, end in itertools.pairwise([0, *ends, len(body)])]
    assert [line.text for line in answers.read_log(pieces)] == expected
    assert answers.read_log(pieces) == answers.read_log([body])


@pytest.mark.parametrize("is_terminal", [False, True])
def test_of_a_log_without_end_only_its_end_is_held(is_terminal: bool) -> None:
    def chunks() -> Iterator[bytes]:
        for number in range(2_000):
            line = f"{STAMP}{number} {'x' * 10_000}\n"
            yield line.encode() if is_terminal else frame(1, line)

    tracemalloc.start()
    try:
        lines = answers.read_log(chunks())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    numbers = [int(line.text.partition(" ")[0]) for line in lines]
    assert numbers == list(range(2_000 - len(lines), 2_000))
    assert len(lines) > 90
    assert peak < 3 * answers.MAX_LOG  # of 20 MB


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_line_without_end_is_not_held_either(is_terminal: bool) -> None:
    size = 40_000_000

    def chunks() -> Iterator[bytes]:
        head = b"" if is_terminal else b"\1\0\0\0" + size.to_bytes(4, "big")
        yield head + STAMP.encode()
        for _ in range((size - len(STAMP)) // 65_536):
            yield b"x" * 65_536

    tracemalloc.start()
    try:
        [line] = answers.read_log(chunks())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (line.at_ms, len(line.text)) == (AT_MS, answers.MAX_TEXT)
    assert peak < 2 * answers.MAX_LOG


# --- what there is -----------------------------------------------------------------------------

LISTED = {"Id": "67", "Names": ["c1"], "Labels": {"lichen.app": "x"}, "ImageID": "2c"}


def inspected(status: str, **state: Any) -> dict[str, Any]:
    common = {"Status": status, "Pid": 7, "ExitCode": 3, "StartedAt": "2026-11-28T21:22:28Z"}
    return {
        "Id": "67",
        "Name": "c1",
        "Image": "2c",
        "State": {**common, "FinishedAt": "2026-11-28T21:22:29.5Z", **state},
        "NetworkSettings": {"Networks": {"n1": {"IPAddress": "10.0.0.2"}}},
    }


@pytest.mark.parametrize(
    ("status", "phase", "pid", "exit_code"),
    [
        ("created", "created", 0, None),
        ("initialized", "created", 0, None),
        ("running", "running", 7, None),
        ("stopping", "running", 7, None),
        ("exited", "exited", 0, 3),
        ("stopped", "ending", 0, 3),
        ("removing", "removing", 0, None),
        ("unknown", "broken", 0, None),
        ("bad", "broken", 0, None),
    ],
)
def test_podmans_words_for_a_state(status: str, phase: str, pid: int, exit_code: int | None) -> None:
    container = answers.read_container(LISTED, inspected(status))
    assert (container.phase, container.pid, container.exit_code) == (phase, pid, exit_code)
    assert container.networks == {"n1": "10.0.0.2"}
    assert container.finished_ms == (AT_MS + 1500 if phase in ("ending", "exited") else None)


def test_a_container_that_cannot_be_inspected_is_broken() -> None:
    container = answers.read_container(LISTED, None)
    assert (container.name, container.phase, container.labels) == ("c1", "broken", {"lichen.app": "x"})


def test_a_healthcheck_of_an_image_can_be_switched_off() -> None:
    image = {"Id": "2c", "RepoTags": None, "RepoDigests": [IMAGE], "Size": 5, "Architecture": "arm64"}
    assert answers.read_image(image).names == (IMAGE,)
    assert not answers.read_image(image).has_health
    assert answers.read_image({**image, "HealthCheck": {"Test": ["CMD", "true"]}}).has_health
    assert not answers.read_image({**image, "Healthcheck": {"Test": ["NONE"]}}).has_health


def test_labels_of_a_secret_are_its_own_or_its_drivers() -> None:
    options = {"lichen.app": "x", "path": "/var/lib/secrets"}
    old = {"Spec": {"Name": "s", "Driver": {"Name": "file", "Options": options}, "Labels": None}}
    new = {"Spec": {"Name": "s", "Driver": {"Name": "file"}, "Labels": {"lichen.app": "x"}}}
    assert answers.read_secret(old) == answers.read_secret(new) == Thing("s", {"lichen.app": "x"})


def test_what_a_machine_is_is_filled_in_where_podman_is_silent() -> None:
    said: dict[str, Any] = {
        "version": {"Version": "4.3.1"},
        "store": {"graphRoot": "/var/lib/containers/storage"},
        "host": {"arch": "arm", "memTotal": 5, "security": {"rootless": False}, "cgroupControllers": ["cpu"]},
    }
    info = answers.read_info(said, "armv7l")
    assert (info.variant, info.memory_limits) == ("v7", False)
    said["host"] |= {"variant": "v6", "cgroupControllers": ["cpu", "memory"]}
    assert answers.read_info(said, "armv7l").variant == "v6"
    assert answers.read_info(said, "armv7l").memory_limits
