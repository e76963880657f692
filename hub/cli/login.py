"""`lichen login`: trade a password or a one-time link for an API token, kept in a file."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from typing import TextIO
from urllib.parse import parse_qs, urlsplit

import aiohttp
import click

from agent.wire.errors import ConfigError, LinkDown, Refused
from hub.cli.client import Login, connect, login_file, reason, save_login
from hub.cli.output import print_json
from hub.cli.root import json_option

MAX_CA = 16 * 1024
PATIENCE = aiohttp.ClientTimeout(total=30, sock_connect=10)


@click.command()
@click.argument("url")
@click.option("--name", default="admin", show_default=True, help="The admin to log in as.")
@click.option("--password-file", type=click.File("r"), help="Read the password from a file, '-' for stdin.")
@click.option("--ca-sha256", default="", help="Fingerprint of the hub's own authority; else you are asked.")
@json_option
def login(url: str, name: str, password_file: TextIO | None, ca_sha256: str, as_json: bool) -> None:
    """Log in to the hub at URL, which may be a one-time login link.

    \b
    lichen login http://127.0.0.1:8420
    lichen login 'http://127.0.0.1:8420/login/link?code=...'
    lichen login https://hub.example.org:8421
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"{url!r} is not the address of a hub", hint="it looks like http://127.0.0.1:8420")
    base = f"{parts.scheme}://{parts.netloc}"
    ca_pem = asyncio.run(_find_hub(base, ca_sha256))  # before anything secret is typed
    if code := parse_qs(parts.query).get("code", [""])[0]:
        claim = {"link": code}
    elif password_file is not None:
        claim = {"name": name, "password": password_file.read().rstrip("\n")}
    else:
        claim = {"name": name, "password": click.prompt(f"Password of {name}", hide_input=True)}
    token = asyncio.run(_log_in(base, ca_pem, claim))
    save_login(login_file(), Login(base, token, ca_pem))
    if as_json:
        return print_json({"url": base, "login_file": str(login_file())})
    click.echo(f"Logged in to {base}; the login is kept in {login_file()}")


async def _log_in(base: str, ca_pem: str, claim: dict[str, str]) -> str:
    async with connect(base, ca_pem=ca_pem) as hub:
        answer = await hub.call("POST", "/login", json=claim)
        return str(answer["token"])


async def _find_hub(base: str, expected: str) -> str:
    """See that a hub answers; returns its own authority, if the user trusts it, else "" (the system's).

    Raises LinkDown when nobody answers, Refused when it is no hub, or not the one that was meant.
    """
    try:
        async with aiohttp.ClientSession(timeout=PATIENCE) as http:
            try:
                async with http.get(f"{base}/healthz"):
                    return ""
            except aiohttp.ClientConnectorCertificateError:
                pass
            async with http.get(f"{base}/ca.pem", ssl=False) as response:
                pem = (await response.content.read(MAX_CA)).decode("ascii", "replace")
    except TimeoutError as error:
        raise LinkDown(f"{base} does not answer", hint="look at the hub's log") from error
    except aiohttp.ClientError as error:
        raise LinkDown(
            f"cannot reach the hub at {base}: {reason(error)}", hint="is it running, and is this its address?"
        ) from error
    try:
        found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        ssl.create_default_context(cadata=pem)
    except (ValueError, ssl.SSLError) as error:
        raise Refused(
            f"{base} shows a certificate that is not trusted, and is no hub: /ca.pem is no certificate",
            hint="the address of a hub looks like https://hub.example.org:8421",
        ) from error
    if expected and expected.lower().replace(":", "") != found:
        raise Refused(f"the authority at {base} has SHA-256 {found}, not {expected}", hint="is it your hub?")
    if not expected:
        click.echo(f"{base} has an authority of its own, SHA-256\n  {found}")
        click.confirm("Is it the ca_sha256 that the hub's operator told you?", abort=True)
    return pem
