"""A file from the page in chunks: one at a time, in order, and never more than was announced."""

from __future__ import annotations


class ChunkedUpload:
    """Collects the chunks of one file. A new first chunk takes the place of what was there."""

    def __init__(self, max_size: int):
        self.max_size = max_size
        self._client, self._size, self._bytes = "", 0, bytearray()

    def take(self, client: str, start: int, size: int, chunk: bytes) -> bytes | None:
        """The chunk that starts at byte `start` of a file of `size` bytes; returns the file once it is whole, else None.

        Raises ValueError, with a sentence, for a file that is too large and for a chunk out of order.
        """
        if not 0 < size <= self.max_size:
            limit = f"{self.max_size / 1e6:.0f} MB"
            raise ValueError(f"The file has {size / 1e6:.1f} MB; more than nothing and at most {limit} are taken.")
        if start == 0:
            self._client, self._size, self._bytes = client, size, bytearray()
        expected = (self._client, self._size, len(self._bytes))
        if (client, size, start) != expected or start + len(chunk) > size:
            self._bytes = bytearray()
            raise ValueError("The file did not arrive in one go; drop it again.")
        self._bytes += chunk
        if len(self._bytes) < size:
            return None
        whole, self._bytes = bytes(self._bytes), bytearray()
        return whole
