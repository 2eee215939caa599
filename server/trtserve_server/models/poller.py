"""Follows the repositories on disk: looks at them again and again and has loaded what has changed and come to rest.

Looking runs on a thread of the executor, woken by the reactor's timer. What is done about a change is the caller's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

from trtserve_engines.config import ConfigError
from trtserve_server.models.repository import Found, ModelVersion
from trtserve_server.scheduling.reactor import Cancel, Reactor

log = logging.getLogger(__name__)

Apply = Callable[[str, Sequence[ModelVersion]], None]


def settled_changes(
    applied: Mapping[str, object], before: Mapping[str, object], now: Mapping[str, object]
) -> list[str]:
    """The names of the models that differ from what was `applied` last and are as they were one look `before`.

    What still changes from look to look is a copy in progress and has to wait.
    """
    names = {*applied, *now}
    return sorted(name for name in names if now.get(name) != applied.get(name) and now.get(name) == before.get(name))


class RepositoryPoller:
    """Looks with `scan` every `interval_s`; `apply` gets a model's name and its new versions, none where it is gone.

    All but `scan` belongs to the scheduling thread.
    """

    def __init__(
        self, scan: Callable[[], Found], apply: Apply, reactor: Reactor, executor: Executor, interval_s: float
    ) -> None:
        self._scan = scan
        self._apply = apply
        self._reactor = reactor
        self._executor = executor
        self._interval_s = interval_s
        self._applied: Found = {}
        self._before: Found = {}
        self._problem = ""
        self._timer: Cancel | None = None

    def start(self, applied: Found) -> None:
        """Begins; `applied` is what has been loaded already."""
        self._applied, self._before = dict(applied), applied
        self._wait()

    def stop(self) -> None:
        """Looks no more."""
        if self._timer is not None:
            self._timer()
        self._timer = None

    def _wait(self) -> None:
        self._timer = self._reactor.at(self._reactor.now() + self._interval_s, self._look)

    def _look(self) -> None:
        self._executor.submit(self._scan_on_thread)

    def _scan_on_thread(self) -> None:
        try:
            found: Found | Exception = self._scan()
        except Exception as error:
            found = error
        self._reactor.post(self._seen, found)

    def _seen(self, found: Found | Exception) -> None:
        if self._timer is None:
            return
        if isinstance(found, Exception):
            self._report(found)
        else:
            self._problem = ""
            for name in settled_changes(self._applied, self._before, found):
                self._take(name, found)
            self._before = found
        self._wait()

    def _take(self, name: str, found: Found) -> None:
        log.info("%s has changed on disk", name) if name in found else log.info("%s is gone from disk", name)
        self._apply(name, found.get(name, []))
        if name in found:
            self._applied[name] = found[name]
        else:
            del self._applied[name]

    def _report(self, error: Exception) -> None:
        """Once per problem: a repository that is away for a while unloads nothing."""
        if str(error) != self._problem:
            self._problem = str(error)
            expected = isinstance(error, ConfigError)
            log.error("the models serve on as they are: %s", error, exc_info=None if expected else error)
