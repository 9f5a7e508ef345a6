"""Scoring on a Ray cluster. The one file that knows Ray (extra `ray`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, TypeVar

from dpcompress.errors import MissingPackage

T = TypeVar("T")
R = TypeVar("R")


def run_on_ray(
    call: Callable[[T], R], items: list[T], workers: int | None, foreign: list[ModuleType]
) -> Iterator[R]:
    """Yield call(item) of every item as it is finished, each in a process of one core.

    The processes get one GPU each where the cluster has some.

    The cluster is the one that Ray finds (RAY_ADDRESS, or one started on this machine);
    without any, one is started here and stopped at the end. Its machines need dpcompress
    and read the images from the same paths, unless they are in memory.

    Args:
        workers: the most items at a time; None for as many as the cluster takes.
        foreign: modules that the cluster's machines cannot import by name; they are sent.

    Raises:
        MissingPackage: Ray is not installed.
        Exception: what `call` raises.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingPackage(
            "The executor ray needs the package ray, which is not installed.",
            "Install it with: pip install 'dpcompress[ray]'",
        ) from error
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, configure_logging=False, include_dashboard=False)
    for module in foreign:
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        most = workers or gpus or int(resources.get("CPU", 1))
        remote = ray.remote(num_cpus=1, num_gpus=min(gpus, 1), max_retries=0)(_apply)
        shared = ray.put(call)
        waiting, running = list(reversed(items)), set[Any]()
        while waiting or running:
            while waiting and len(running) < most:
                running.add(remote.remote(shared, waiting.pop()))
            finished, _ = ray.wait(list(running))
            for reference in finished:
                running.remove(reference)
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                yield result
    finally:
        for module in foreign:
            ray.cloudpickle.unregister_pickle_by_value(module)
        if started:
            ray.shutdown()


def _apply(call: Callable[[T], R], item: T) -> R:
    return call(item)
