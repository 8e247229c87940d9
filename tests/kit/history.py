"""The history of a control plane's etcd, of which each revision is read once."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from devcluster import ControlPlane
from judge import History, read_history

_known: WeakKeyDictionary[ControlPlane, History] = WeakKeyDictionary()


def history_of(plane: ControlPlane) -> History:
    """Give all revisions up to now."""
    etcd = (plane.etcd_endpoints[0], plane.etcd_ca, plane.etcd_cert, plane.etcd_key)
    made = _known[plane] = read_history(*etcd, known=_known.get(plane))
    return made


def forget(plane: ControlPlane) -> None:
    """Read all of it again the next time, since some of it is undone."""
    _known.pop(plane, None)
