"""Proxies with TLS in front of the API, as docs/security.md shows them, run with a certificate of the tests' own."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import signal
import socket
import ssl
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.servers.process import LOOPBACK, ServerProcess
from tests.servers.programs import find_caddy, find_nginx

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"
NAME = "restarts.example.com"
"""What the page calls the API from outside."""

_UPSTREAM = "127.0.0.1:8321"


def example(language: str) -> str:
    """Return the only block of the page in that language."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


def replaced(text: str, **by: str) -> str:
    """Return a text with each of some words, which must be there once, replaced."""
    for before, after in by.items():
        if text.count(before) != 1:
            raise AssertionError(f"the example has {before!r} {text.count(before)} times")
        text = text.replace(before, after)
    return text


def make_certificate(folder: Path) -> None:
    """Write ``cert.pem``, signed by itself, and ``cert.key`` into a folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address(LOOPBACK))]
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8
    plain = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "cert.key").write_bytes(plain)


class TlsProxy(ServerProcess):
    """One in front of ``upstream`` (HOST:PORT)."""

    stop_signal = signal.SIGTERM

    def __init__(self, program: Path, folder: Path, upstream: str) -> None:
        super().__init__(folder)
        self.program, self.upstream = program, upstream
        make_certificate(folder)

    @classmethod
    @abstractmethod
    def find(cls, environ: Mapping[str, str]) -> Path:
        """Return its program. Raises ``MissingServer``."""

    @property
    def url(self) -> str:
        return f"https://{LOOPBACK}:{self.port}"

    def trusting(self) -> ssl.SSLContext:
        """Return what trusts this proxy's certificate alone."""
        return ssl.create_default_context(cafile=str(self.folder / "cert.pem"))

    def answers(self) -> bool:
        try:
            with (
                socket.create_connection((LOOPBACK, self.port), 1) as plain,
                self.trusting().wrap_socket(plain, server_hostname=NAME) as wire,
            ):
                return wire.version() is not None
        except OSError:
            return False


class Nginx(TlsProxy):
    """nginx, with the page's ``server`` in a file of its own."""

    name = "nginx"
    stop_signal = signal.SIGTERM  # at once: SIGQUIT waits for streams

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Path:
        return find_nginx(environ)

    def command(self) -> list[str]:
        server = replaced(
            example("nginx"),
            **{
                "listen 443 ssl": f"listen {LOOPBACK}:{self.port} ssl",
                f"/etc/ssl/{NAME}.pem": str(self.folder / "cert.pem"),
                f"/etc/ssl/{NAME}.key": str(self.folder / "cert.key"),
                _UPSTREAM: self.upstream,
            },
        )
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {self.folder}/{kind};\n" for kind in kinds)
        user = "user root;\n" if os.geteuid() == 0 else ""  # its workers could not come to the folder otherwise
        text = f"daemon off;\npid {self.folder}/pid;\n{user}events {{}}\n"
        text += f"http {{\naccess_log off;\n{temporary}{server}}}\n"
        (self.folder / "nginx.conf").write_text(text)
        return [str(self.program), "-p", str(self.folder), "-e", "stderr", "-c", str(self.folder / "nginx.conf")]


class Caddy(TlsProxy):
    """Caddy, with the page's site in a file of its own."""

    name = "caddy"

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Path:
        return find_caddy(environ)

    def command(self) -> list[str]:
        own = f"https://{NAME}:{self.port} {{\n\tbind {LOOPBACK}\n\ttls {self.folder}/cert.pem {self.folder}/cert.key\n"
        site = replaced(example("caddy"), **{f"{NAME} {{\n": own, _UPSTREAM: self.upstream})
        (self.folder / "Caddyfile").write_text(f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{site}")
        return [str(self.program), "run", "--adapter", "caddyfile", "--config", str(self.folder / "Caddyfile")]

    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}
