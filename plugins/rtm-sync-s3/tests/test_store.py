"""The store passes the contract on a real S3 server, and has the properties of its README."""

from __future__ import annotations

import os

from rtm_sync_s3.store import PART_SIZE, S3MediaStore

from rtm_sync.hub.media import MediaStore, MediaWriter
from rtm_sync.protocol import MediaInfo
from rtm_sync.testing import FaultProxy, MediaStoreContract

from .support import S3Case, forgetful_service

ID = "A" * 32


class S3StoreTest(MediaStoreContract, S3Case):
    def store(self) -> MediaStore:
        return S3MediaStore.from_url(self.url("&redirect=1"))

    def break_store(self) -> None:
        self.remove_bucket()

    # -- parts and objects --

    def small(self) -> MediaWriter:
        """A writer that has sent nothing yet."""
        writer = self.opened().create(ID, "")
        self.addCleanup(writer.abort)
        return writer

    def large(self, store: MediaStore) -> MediaWriter:
        """A writer that has sent a part."""
        writer = store.create(ID, "")
        self.addCleanup(writer.abort)
        writer.write(bytes(PART_SIZE + 1))
        return writer

    def test_parts_leave_while_the_blob_comes_in(self) -> None:
        writer = self.small()
        writer.write(bytes(PART_SIZE))
        self.assertEqual(self.unfinished(), [])
        writer.write(b"x")
        self.assertEqual(self.unfinished(), [f"rtm-media/{ID}"])
        writer.commit()
        self.assertEqual((self.unfinished(), self.keys()), ([], [f"rtm-media/{ID}"]))

    def test_what_is_aborted_leaves_neither_parts_nor_an_object(self) -> None:
        writer = self.large(self.opened())
        self.assertEqual(len(self.unfinished()), 1)
        writer.abort()
        self.assertEqual((self.unfinished(), self.keys()), ([], []))

    def test_blobs_are_under_the_prefix_of_the_url(self) -> None:
        address = self.url().replace("?", "/chat/media%20of%20app?", 1)
        store = S3MediaStore.from_url(address)
        self.addCleanup(store.close)
        self.put(store, ID, b"x")
        self.assertEqual(self.keys(), [f"chat/media of app/{ID}"])

    def test_without_the_option_bytes_come_through_the_hub(self) -> None:
        store = S3MediaStore.from_url(self.url())
        self.addCleanup(store.close)
        self.put(store, ID, b"x")
        info = MediaInfo(ID, 1, "ab" * 32, "x", "text/plain", 0.0)
        self.assertIsNone(store.location(info, 60))

    # -- integrity --

    def behind(self, proxy: FaultProxy) -> MediaStore:
        """The store behind a network with the faults of a test."""
        store = S3MediaStore.from_url(self.url(endpoint=proxy.url))
        self.addCleanup(store.close)
        return store

    def test_parts_that_are_damaged_on_their_way_are_found_and_removed(self) -> None:
        proxy = self.entered(FaultProxy(self.server.url))
        store = self.behind(proxy)
        writer = store.create(ID, "")
        self.addCleanup(writer.abort)
        proxy.drop()
        proxy.damage(sent=1_000_000)  # of each new connection; the first sends a part
        writer.write(bytes(PART_SIZE + 1))
        proxy.restore()
        with self.assertRaisesRegex(OSError, "stored other bytes"):
            writer.commit()
        self.assertEqual((self.unfinished(), self.keys()), ([], []))

    def test_where_the_service_has_no_checksums_the_blob_is_read_back(self) -> None:
        data = os.urandom(PART_SIZE + 1000)
        for damage in (False, True):
            with self.subTest(damage=damage), forgetful_service(self.server.url) as service:
                store = S3MediaStore.from_url(self.url(endpoint=service.url))
                self.addCleanup(store.close)
                writer = store.create(ID, "")
                self.addCleanup(writer.abort)
                writer.write(data)
                service.damages = damage
                if damage:
                    with self.assertRaisesRegex(OSError, "stored other bytes"):
                        writer.commit()
                    self.assertEqual(self.keys(), [])
                else:
                    writer.commit()
                    self.assertEqual(self.keys(), [f"rtm-media/{ID}"])
                    self.assertTrue(service.was_read)
                    store.delete(ID)

    # -- a service that fails --

    def test_a_part_that_did_not_get_through_is_sent_again(self) -> None:
        proxy = self.entered(FaultProxy(self.server.url))
        store = self.behind(proxy)
        data = os.urandom(PART_SIZE + 1000)
        writer = store.create(ID, "")
        self.addCleanup(writer.abort)
        writer.write(data[:PART_SIZE])
        proxy.refuse()
        proxy.drop()
        with self.assertRaisesRegex(OSError, "Could not connect"):
            writer.write(data[PART_SIZE:])
        writer.truncate(PART_SIZE)  # as a hub does
        proxy.restore()
        writer.write(data[PART_SIZE:])
        writer.commit()
        self.assertEqual(self.read(store, ID), data)

    def test_a_download_that_breaks_off_is_an_error_and_goes_on_from_anywhere(self) -> None:
        proxy = self.entered(FaultProxy(self.server.url))
        store = self.behind(proxy)
        data = os.urandom(3_000_000)
        self.put(store, ID, data)
        proxy.drop()
        proxy.truncate(received=1_000_000)
        with store.open(ID) as file, self.assertRaises(OSError):
            while file.read(100_000):
                pass
        proxy.restore()
        with store.open(ID) as file:
            file.seek(900_000)
            self.assertEqual(file.read(), data[900_000:])

    def test_a_server_that_is_killed_is_a_clear_error(self) -> None:
        server = self.own_server()
        writer = self.large(self.opened())
        server.kill()
        with self.assertRaisesRegex(OSError, f"storing rtm-media/{ID}.*Could not connect"):
            writer.commit()
        with self.assertLogs("rtm_sync_s3", "WARNING") as logged:
            writer.abort()
        self.assertIn("until the lifecycle rule removes them", logged.output[0])
