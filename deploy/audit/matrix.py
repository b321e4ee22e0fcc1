"""Clients by models: what a key may ask has to answer, all else is closed in every spelling."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from deploy.audit import door, grpc_ways, http_ways, target
from deploy.audit.way import Way
from load_tests.asking.endpoint import Access, EndpointError


@dataclass(frozen=True)
class Holder:
    """Who has a key, and what it may ask."""

    key: str
    models: tuple[str, ...]


def ways(
    holders: Mapping[str, Holder], find: Callable[[str, Access], target.Target], access: Access
) -> Iterator[Way]:
    """Return the ways of every client to every model that somebody may ask."""
    every = dict.fromkeys(model for one in holders.values() for model in one.models)
    for name, holder in holders.items():
        found = {model: _door(find, model, holder, access) for model in holder.models}
        for model, client in found.items():
            for way in _open(client, model):
                yield replace(way, name=f"{name}: {way.name}")
        asking = next((client for client in found.values() if client), None)
        if asking is None:  # said above
            continue
        grpc = grpc_ways.Grpc(asking)
        for model in (one for one in every if one not in holder.models):
            for way in (*grpc_ways.closed(grpc, model), *http_ways.closed(asking, model)):
                yield replace(way, name=f"{name}: {way.name}")


def _door(
    find: Callable[[str, Access], target.Target], model: str, holder: Holder, access: Access
) -> door.Door | None:
    try:
        return door.find(find(model, replace(access, api_key=holder.key)), key=holder.key)
    except EndpointError:
        return None


def _open(client: door.Door | None, model: str) -> Iterator[Way]:
    """Return the calls to a model that have to work."""
    if client is None:
        yield Way(f"gRPC ModelMetadata {model}", lambda: None, wanted=True)
        return
    grpc = grpc_ways.Grpc(client)
    yield grpc.way(f"ModelInfer {model}", "ModelInfer", grpc.right, wanted=True)
    yield http_ways.infer(client)
