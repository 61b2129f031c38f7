"""The media store contract: deletion, and restarts of the store."""

from __future__ import annotations

from ...hub.media.store import Fragment, MediaStore
from .kit import (
    ID,
    METADATA,
    OTHER,
    MediaStoreKit,
)


class LifetimeTests(MediaStoreKit):
    """Deleted blobs are gone; committed blobs, and fragments, outlive a restart where promised."""

    def test_deleting_what_is_not_there_is_no_matter(self) -> None:
        store = self.opened()
        self.put(store, ID, b"kept")
        store.delete(OTHER)
        self.assertEqual(self.read(store, ID), b"kept")

    def test_deleting_twice_is_no_matter(self) -> None:
        store = self.opened()
        self.put(store, ID, b"x")
        store.delete(ID)
        store.delete(ID)
        self.assert_unknown(store, ID)

    def test_a_deleted_blobs_id_is_free_again(self) -> None:
        store = self.opened()
        self.put(store, ID, b"first")
        store.delete(ID)
        self.put(store, ID, b"second")
        self.assertEqual(self.read(store, ID), b"second")

    # -- finalizing, restarting --

    def test_a_finalized_blob_is_no_fragment(self) -> None:
        store = self.opened()
        self.put(store, ID, b"x")
        store.finalize(ID)
        self.assertEqual(store.fragments(), [])
        self.assertEqual(self.read(store, ID), b"x")

    def test_a_store_that_works_has_no_problem(self) -> None:
        store = self.opened()
        self.put(store, ID, b"x")
        self.assertIsNone(store.problem())

    def test_closing_is_idempotent(self) -> None:
        store = self.store()
        self.put(store, ID, b"x")
        store.close()
        store.close()
        if self.outlives_process:
            self.assertEqual(self.read(self.opened(), ID), b"x")
        else:
            self.assert_unknown(self.opened(), ID)

    def test_what_was_committed_outlives_a_restart_and_what_was_aborted_does_not(self) -> None:
        store = self.store()
        self.put(store, ID, b"kept")
        writer = store.create(OTHER, METADATA)
        writer.write(b"given up")
        writer.abort()
        store.close()
        later = self.opened()
        self.assertEqual(later.fragments(), [])
        self.assert_unknown(later, OTHER)
        if self.outlives_process:
            self.assertEqual(self.read(later, ID), b"kept")
        else:
            self.assert_unknown(later, ID)

    def restarted_with_fragments(self) -> MediaStore:
        """The store after a restart, with one blob begun and another not finalized."""
        store = self.store()
        half, whole = store.create(ID, METADATA), store.create(OTHER, "whole")
        half.write(b"12345")
        half.suspend()  # as for a process that is killed
        whole.write(b"67")
        whole.commit()
        store.close()
        later = self.opened()
        self.assert_unknown(later, ID)
        return later

    def test_what_was_begun_is_known_after_a_restart_where_the_store_keeps_it(self) -> None:
        found = sorted(self.restarted_with_fragments().fragments(), key=lambda one: one.media_id)
        kept = [
            Fragment(ID, METADATA, 5, is_whole=False),
            Fragment(OTHER, "whole", 2, is_whole=True),
        ]
        self.assertEqual(found, kept if self.keeps_fragments else [])

    def test_what_was_begun_is_taken_up_where_the_store_keeps_it(self) -> None:
        store = self.restarted_with_fragments()
        if not self.keeps_fragments:
            with self.assertRaises(OSError):
                store.reopen(ID)
            return
        writer, reader = store.reopen(ID)
        with reader:
            self.assertEqual(reader.read(), b"12345")
        writer.write(b"678")
        writer.truncate(6)
        writer.commit()
        store.finalize(ID)
        store.finalize(OTHER)
        self.assertEqual((self.read(store, ID), self.read(store, OTHER)), (b"123456", b"67"))
        self.assertEqual(store.fragments(), [])

    def test_what_was_begun_can_be_given_up_after_a_restart(self) -> None:
        store = self.restarted_with_fragments()
        if self.keeps_fragments:
            writer, reader = store.reopen(ID)
            reader.close()
            writer.abort()
        else:
            store.delete(ID)
        store.delete(OTHER)
        self.assertEqual(store.fragments(), [])
        self.assert_unknown(store, OTHER)

    def test_what_was_never_begun_is_not_taken_up(self) -> None:
        store = self.opened()
        with self.assertRaises(OSError):
            store.reopen(ID)
