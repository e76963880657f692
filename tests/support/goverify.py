"""The verifier of our proofs in another language: `verify.go`, built from nothing that was downloaded."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

PROGRAM = Path(__file__).with_name("verify.go")
DEBIAN_SOURCES = "/usr/share/gocode"


def build(folder: Path) -> Path:
    """The program in ``folder``, made with Debian's packages."""
    go = {"GO111MODULE": "off", "GOPATH": DEBIAN_SOURCES, "GOCACHE": str(folder / "cache"), "GOFLAGS": ""}
    built = subprocess.run(
        ["go", "build", "-o", folder / "verify", PROGRAM],
        env=os.environ | go,
        cwd=folder,
        capture_output=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr.decode()
    return folder / "verify"


def verify(program: Path, proofs: Iterable[bytes], log: str, witness: str) -> list[str]:
    """What the program says of each proof."""
    asked = b"\0".join(proofs)
    ran = subprocess.run([program, log, witness], input=asked, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr.decode()
    said = ran.stdout.decode().splitlines()
    assert len(said) == asked.count(b"\0") + 1
    return said
