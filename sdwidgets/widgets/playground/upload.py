"""A file from the page, in pieces: one at a time, in order, and never more than was announced."""

from __future__ import annotations

PIECE = 512 * 1024  # bytes in one message, either way


class Parcel:
    """Collects the pieces of one file. A new first piece takes the place of what was there."""

    def __init__(self, at_most: int):
        self.at_most = at_most
        self._whose, self._size, self._bytes = "", 0, bytearray()

    def take(self, whose: str, at: int, size: int, piece: bytes) -> bytes | None:
        """A piece that starts at byte `at` of a file of `size` bytes; returns the file once it is whole, else None.

        Raises ValueError, with a sentence, for a file that is too large and for a piece out of its place.
        """
        if not 0 < size <= self.at_most:
            limit = f"{self.at_most / 1e6:.0f} MB"
            raise ValueError(f"The file has {size / 1e6:.1f} MB; more than nothing and at most {limit} are taken.")
        if at == 0:
            self._whose, self._size, self._bytes = whose, size, bytearray()
        if (whose, size, at) != (self._whose, self._size, len(self._bytes)) or at + len(piece) > size:
            self._bytes = bytearray()
            raise ValueError("The file did not arrive in one go; drop it again.")
        self._bytes += piece
        if len(self._bytes) < size:
            return None
        whole, self._bytes = bytes(self._bytes), bytearray()
        return whole
