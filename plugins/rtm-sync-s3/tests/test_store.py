"""The store passes the contract on a real S3 server; and what is its own."""

from __future__ import annotations

from rtm_sync_s3.store import S3MediaStore

from rtm_sync.hub.media import MediaStore
from rtm_sync.testing import MediaStoreContract

from .support import S3Case

ID = "A" * 32


class S3StoreTest(MediaStoreContract, S3Case):
    def store(self) -> MediaStore:
        return S3MediaStore.from_url(self.url("&redirect=1"))

    def break_store(self) -> None:
        self.remove_bucket()
