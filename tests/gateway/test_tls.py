"""The gateway's TLS: WebSocket and HTTP, renewed certificates, invalid files."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import trustme

from rtm_sync import LoginError, RtmClient
from rtm_sync.gateway.app import BackgroundGateway
from rtm_sync.gateway.config import ConfigError, GatewayConfig
from rtm_sync.gateway.tls import Certificate
from tests.support import PATIENCE, RtmTestCase


class TlsCase(RtmTestCase):
    def setUp(self) -> None:
        self.files = self.folder()
        self.authority = trustme.CA()
        self.ca_file = self.files / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        self.chain, self.key = self.files / "chain.pem", self.files / "key.pem"
        self.issue()

    def issue(self, authority: trustme.CA | None = None) -> None:
        made = (authority or self.authority).issue_cert("127.0.0.1")
        made.private_key_pem.write_to_path(str(self.key))
        chain = b"".join(pem.bytes() for pem in made.cert_chain_pems)
        self.chain.write_bytes(chain)


class ServeTest(TlsCase):
    def config(self, **more: str) -> GatewayConfig:
        given = {"tls_cert": str(self.chain), "tls_key": str(self.key), **more}
        return GatewayConfig(port=0, data=str(self.files / "data"), **given)  # type: ignore[arg-type]

    def test_messages_and_media_go_over_it_and_strangers_certificates_are_refused(self) -> None:
        url = self.entered(BackgroundGateway(self.config())).url
        self.assertEqual(urlsplit(url).scheme, "wss")
        with RtmClient("app", url=url, ca_file=self.ca_file) as alice:
            alice.login("alice")
            self.assertFalse(alice.send_message_to_peer("hi", "bob").has_peer_received)
            message = alice.create_media_message_by_uploading(bytes(300_000)).result(PATIENCE)
            blob = alice.download_media(message.media_id).result(PATIENCE)
            self.assertEqual(blob.size, 300_000)
        with RtmClient("app", url=url) as stranger, self.assertRaises(LoginError) as caught:
            stranger.login("alice")
        self.assertIn("certificate", str(caught.exception).lower())
        host = (urlsplit(url).hostname, urlsplit(url).port)
        with socket.create_connection(host, PATIENCE) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            plain.settimeout(PATIENCE)
            self.assertNotIn(b"200", plain.recv(100))

    def test_files_that_cannot_be_used_keep_it_from_starting(self) -> None:
        for name, path in (("missing", self.files / "no.pem"), ("another's", self.ca_file)):
            config = self.config(tls_key=str(path))
            with self.subTest(name), self.assertRaisesRegex(ConfigError, "tls_cert"):
                BackgroundGateway(config).start()


class RenewalTest(TlsCase):
    def shown(self, certificate: Certificate) -> bytes:
        """The certificate that a client receives."""
        server, client = ssl.MemoryBIO(), ssl.MemoryBIO()
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        ends = (
            trusting.wrap_bio(server, client),
            certificate.context.wrap_bio(client, server, server_side=True),
        )
        for _ in range(4):
            for end in ends:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    pass
        shown = ends[0].getpeercert(binary_form=True)
        assert shown is not None
        return shown

    def test_a_renewed_certificate_is_shown_to_new_connections(self) -> None:
        certificate = Certificate(self.chain, self.key)
        before = self.shown(certificate)
        self.assertFalse(certificate.reload_if_changed())
        self.issue()
        self.assertTrue(certificate.reload_if_changed())
        self.assertNotEqual(self.shown(certificate), before)

    def test_half_a_renewal_changes_nothing(self) -> None:
        certificate = Certificate(self.chain, self.key)
        before = self.shown(certificate)
        whole = self.key.read_bytes()
        for spoil in (b"garbage", b""):
            self.key.write_bytes(spoil)
            with self.assertLogs("rtm_sync", "ERROR"):
                self.assertFalse(certificate.reload_if_changed())
            self.assertEqual(self.shown(certificate), before)
        Path(self.key).unlink()
        with self.assertLogs("rtm_sync", "ERROR"):
            self.assertFalse(certificate.reload_if_changed())
        self.key.write_bytes(whole)
        self.assertTrue(certificate.reload_if_changed())
