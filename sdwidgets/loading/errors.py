"""What can go wrong on the way to a model: one class each, so that a caller can tell them apart."""

from __future__ import annotations

FALLBACK = 'Meanwhile load("pocket") works without a download.'


class LoadError(RuntimeError):
    """A model that could not be loaded; the message says why and what to do."""


class UnknownModelError(LoadError):
    """No such name, folder, repository or revision."""


class GatedModelError(LoadError):
    """The hub wants a signed-in account that has accepted the model's licence."""


class NoNetworkError(LoadError):
    """The hub cannot be reached, and the cache does not have the model."""


class NoSpaceError(LoadError):
    """The disk, or the memory of the device, is too small."""


class WeightsError(LoadError):
    """The files are there, but cut, foreign, of another model, or pickles."""


class DeviceError(LoadError):
    """No such device or precision on this machine."""
