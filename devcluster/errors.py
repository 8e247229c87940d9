"""The errors of devcluster. Each message is a sentence for the person who started it."""


class DevclusterError(Exception):
    """The cluster cannot do what was asked. The message says why and, if possible, what to do."""


class NoBinariesError(DevclusterError):
    """Programs of the control plane are missing and cannot be built here."""


class NoNodeError(DevclusterError):
    """A node cannot run here. The message says what it needs."""


class BusyError(DevclusterError):
    """Another process runs a cluster in this state folder."""

    def __init__(self, message: str, pid: int) -> None:
        super().__init__(message)
        self.pid = pid
