"""What is asked of Podman's API, one question after the other: run in the threads of `podman`.

`Client` is podman-py's HTTP client with a time limit for each call and with errors that are ours; the
functions are those looks and changes that take more than one call.  They block, and belong to one thread.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent.containers import answers
from agent.containers.engine import LABEL_APP, Check, Container, Image
from agent.wire.apps import LogLine
from agent.wire.errors import LinkDown, Refused

CONNECT_S = 3.0
LIST_S = 10.0
CHANGE_S = 60.0
"""Of create, start, remove: on a slow card a container's volumes are filled in it."""
CHECK_S = 30.0
"""Of a healthcheck that names no time limit."""
CHUNK = 64 * 1024
"""Bytes of a log that are read at a time."""
BROKEN = re.compile(r'image "([0-9a-f]{64})"')
NOT_STARTED = ("configured", "created")
OURS = json.dumps({"label": [LABEL_APP]})


class Client:
    """The way to the service at ``path`` for one thread; ``api`` is podman-py's HTTP client, and ``hint``
    what to do when nobody answers."""

    def __init__(self, api: Any, path: Path, hint: str = "") -> None:
        self._api = api
        self._path = path
        self._hint = hint

    def get(self, what: str, path: str, **params: Any) -> Any:
        """The JSON of an answer."""
        return self.read(what, self.ask("GET", what, path, params=params, limit_s=LIST_S))

    def read(self, what: str, answer: Any) -> Any:
        """The JSON of an answer; one that was cut is none."""
        try:
            return answer.json()
        except ValueError as error:
            reason = f"{what}: Podman's answer at {self._path} is cut short"
            raise LinkDown(reason, code="podman-down", hint=self._hint) from error

    def post(self, what: str, path: str, body: object) -> Any:
        """POST a JSON body; the answer."""
        return self.ask(
            "POST", what, path, data=json.dumps(body), headers={"Content-Type": "application/json"}
        )

    def delete(self, what: str, path: str, params: Mapping[str, Any]) -> None:
        """DELETE; what is not there has been removed."""
        try:
            self.ask("DELETE", what, path, params=params)
        except Refused as error:
            if error.code != "not-found":
                raise

    def ask(self, method: str, what: str, path: str, *, limit_s: float = CHANGE_S, **options: Any) -> Any:
        """The answer.  Raises Refused with a code, and LinkDown (code "podman-down") when none comes."""
        if not self._path.is_socket():
            raise LinkDown(f"{what}: there is no Podman at {self._path}", code="podman-down", hint=self._hint)
        began_s = time.monotonic()
        call = {"GET": self._api.get, "POST": self._api.post, "DELETE": self._api.delete}[method]
        try:
            answer = call(path, timeout=(CONNECT_S, limit_s), **options)
            if answer.status_code >= 400:
                raise answers.refusal(what, answer.status_code, answer.text)
        except OSError as error:  # which is what requests and podman-py raise
            reason = f"{what}: Podman does not answer at {self._path}"
            if time.monotonic() - began_s >= limit_s:
                reason = f"{what}: Podman did not answer within {limit_s:g} s"
            raise LinkDown(reason, code="podman-down", hint=self._hint) from error
        return answer


def list_containers(client: Client) -> list[Container]:
    """Those of ours, each inspected."""
    listed = client.get("listing containers", "/containers/json", all=True, filters=OURS)
    found = []
    for row in listed or []:
        try:
            said = client.get("inspecting a container", f"/containers/{row['Id']}/json")
        except Refused as error:
            if error.code == "not-found":
                continue  # it has gone since
            said = None
        found.append(answers.read_container(row, said))
    return found


def find_image(client: Client, reference: str) -> Image | None:
    """The image with this reference or id.

    While any image is broken, whosever it is, Podman cannot tell what it does not find from what it cannot
    read.  Its storage can: it knows the image by this name, or has none, and knows whether a layer is gone.
    """
    try:
        said = client.get("inspecting an image", f"/images/{image_path(reference)}/json")
    except Refused as error:
        if error.code == "not-found":
            return None
        if error.code != "image":
            raise
        image = _stored(client, reference)
        if image is not None and not image.broken:
            raise
        return image
    return answers.read_image(said)


def _stored(client: Client, reference: str) -> Image | None:
    """The image that has this name or id in the storage, and whether it lacks a layer.

    It is read from the lists that containers/storage keeps: nothing else tells the names of a broken image.
    """
    store = client.get("asking Podman where images are", "/info")["store"]
    folder, driver = Path(store["graphRoot"]), store["graphDriverName"]
    try:
        images = json.loads((folder / f"{driver}-images/images.json").read_bytes())
        layers = json.loads((folder / f"{driver}-layers/layers.json").read_bytes())
    except (OSError, ValueError) as error:
        raise Refused(
            f"an image on this board lacks a layer, and which one cannot be read below {folder}: {error}",
            code="image",
            hint="find it with: podman images; remove it with: podman rmi --force",
        ) from error
    below = {each["id"]: each.get("parent") or "" for each in layers}
    for each in images:
        if reference == each["id"] or reference in (each.get("names") or ()):
            layer = each.get("layer") or ""
            while layer in below:
                layer = below[layer]
            return Image(each["id"], (reference,), 0, broken=bool(layer))
    return None


def list_images(client: Client) -> list[Image]:
    """All, each inspected; the first broken one alone where that hides the others."""
    try:
        listed = client.get("listing images", "/images/json")
    except Refused as error:
        return [Image(_broken_of(error), (), 0, broken=True)]
    found = (find_image(client, row["Id"]) for row in listed or [])
    return [image for image in found if image is not None]


def _broken_of(error: Refused) -> str:
    """The id of the broken image that a list stumbled over; raises the error when it is about none."""
    named = BROKEN.search(str(error))
    if error.code != "image" or named is None:
        raise error
    return named[1]


def create(client: Client, body: Mapping[str, Any]) -> str:
    """Make a container; returns its id."""
    name = body["name"]
    what = f"making {name}"
    try:
        answer = client.post(what, "/containers/create", body)
    except Refused as error:
        if error.code != "exists" or _has_container(client, name):
            raise
        # A power cut left its storage, which nobody lists and which holds the name.
        client.delete(what, f"/containers/{path_of(name)}", {"force": True, "ignore": True})
        answer = client.post(what, "/containers/create", body)
    return str(client.read(what, answer)["Id"])


def _has_container(client: Client, name: str) -> bool:
    try:
        client.get("inspecting a container", f"/containers/{path_of(name)}/json")
    except Refused as error:
        return error.code != "not-found"
    return True


def init(client: Client, id: str) -> int:
    """Make the first process of a container; its pid, 0 when there is none.

    What is refused here `start` refuses, too, and cleans up behind it, which this call of Podman's does not.
    """
    what, path = f"making the process of {id}", f"/containers/{path_of(id)}"
    try:
        client.post(what, f"{path}/init", None)
        return int(client.get(what, f"{path}/json")["State"]["Pid"])
    except Refused:
        return 0


def start(client: Client, id: str) -> None:
    """Start a container; no error when it runs already.

    A service that is killed while it starts one has either left a process that it does not know of: then
    the next attempt fails, and ends that, and the one after it succeeds.  Or it has not written down that
    it did start: then no attempt ever succeeds, and the container has to be made again.
    """
    what, path = f"starting {id}", f"/containers/{path_of(id)}/start"
    try:
        try:
            client.post(what, path, None)
        except Refused as error:
            if error.code != "exists":
                raise
            client.post(what, path, None)
    except Refused as error:
        if error.code == "broken":
            remove_container(client, id)
        raise


def remove_image(client: Client, reference: str, *, force: bool) -> None:
    """Remove an image, or only its name where it has others.

    By force what was made of it goes too, unless any of that is not ours.
    """
    what = f"removing the image {reference}"
    if force:
        listed = client.get(what, "/containers/json", all=True)
        theirs = [
            row for row in listed or [] if row["ImageID"] == reference and LABEL_APP not in _labels(row)
        ]
        if theirs:
            raise Refused(f"{what}: it is used by {theirs[0]['Names'][0]}", code="in-use")
    client.delete(what, f"/images/{image_path(reference)}", {"force": force})


def _labels(row: Mapping[str, Any]) -> Mapping[str, str]:
    return row.get("Labels") or {}


def remove_container(client: Client, id: str) -> None:
    """Remove a container by force; no error when it is not there."""
    what, path = f"removing the container {id}", f"/containers/{path_of(id)}"
    with contextlib.suppress(Refused):
        status = client.get(what, f"{path}/json")["State"]["Status"]
        if status in NOT_STARTED:
            # Or so it seems, see `start`.
            client.post(what, f"{path}/init", None)
        elif status == "stopping":
            # A service was killed in it: its process lives, and would be forgotten.
            client.ask("POST", what, f"{path}/stop", params={"timeout": 0})
    # Without a time of 0 a program that ignores TERM would have ten seconds more.
    params = {"force": True, "v": True, "timeout": 0, "ignore": True}
    client.delete(what, path, params)


def leave(client: Client, network: str, id: str) -> None:
    """Take a container's aliases on a network, and leave it its address there, also that of its interface.

    Podman can only take it off and put it on again, which is over in half a second: connections notice
    nothing but a pause.
    """
    what, path = f"taking the names of {id} on {network}", f"/networks/{path_of(network)}"
    said = client.get(what, f"/containers/{path_of(id)}/json")
    there = (said["NetworkSettings"].get("Networks") or {}).get(network)
    if there is None:
        return
    addresses = [there.get("IPAddress"), there.get("GlobalIPv6Address")]
    kept = {"static_ips": [each for each in addresses if each], "static_mac": there.get("MacAddress")}
    client.post(what, f"{path}/disconnect", {"Container": id})
    body = {"container": id, "aliases": [], **{key: value for key, value in kept.items() if value}}
    client.post(what, f"{path}/connect", body)


def run_check(client: Client, id: str) -> Check:
    """Run a container's healthcheck now, for no longer than it says itself."""
    what, path = f"checking {id}", f"/containers/{path_of(id)}"
    config = client.get(what, f"{path}/json")["Config"].get("Healthcheck") or {}
    if not config.get("Test") or config["Test"] == ["NONE"]:
        raise Refused(f"{what}: it has no healthcheck", code="no-check")
    limit_s = (config.get("Timeout") or 0) / 1e9 or CHECK_S
    too_slow = Check(False, f"it did not end within {limit_s:g} s")
    began_s = time.monotonic()
    try:
        result = client.read(what, client.ask("GET", what, f"{path}/healthcheck", limit_s=limit_s))
    except Refused as error:
        if "exceeded timeout" not in str(error):
            raise
        return too_slow
    except LinkDown:
        if time.monotonic() - began_s < limit_s:
            raise
        # Podman measures how long a check takes, but does not end it.  It has to be there itself.
        client.get(what, f"{path}/json")
        return too_slow
    state = client.get(what, f"{path}/json")["State"]
    log = (state.get("Health") or state.get("Healthcheck") or {}).get("Log") or []
    if not log:
        return Check(result.get("Status") == "healthy")
    return Check(log[-1]["ExitCode"] == 0, log[-1].get("Output") or "")


def read_log(client: Client, id: str, params: Mapping[str, Any]) -> list[LogLine]:
    """The last lines of a log.  It is read as it comes: a log may be larger than the memory of a board."""
    what, began_s = f"reading the log of {id}", time.monotonic()

    def chunks() -> Iterator[bytes]:
        for chunk in answer.iter_content(CHUNK):
            if time.monotonic() - began_s > CHANGE_S:
                raise LinkDown(f"{what}: it has no end within {CHANGE_S:g} s", code="podman-down")
            yield chunk

    answer = client.ask(
        "GET", what, f"/containers/{path_of(id)}/logs", params=params, limit_s=LIST_S, stream=True
    )
    with contextlib.closing(answer):
        try:
            return answers.read_log(chunks())
        except OSError as error:
            raise LinkDown(f"{what}: Podman went away", code="podman-down") from error


def path_of(name: str) -> str:
    """A name as part of a path."""
    return quote(name, safe="")


def image_path(reference: str) -> str:
    """A reference as the part of a path that Podman reads slashes in."""
    return quote(reference, safe="/:@")
