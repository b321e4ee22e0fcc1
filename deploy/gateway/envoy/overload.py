"""Envoy's own bounds: memory, and how long a connection may stay silent or stop reading."""

from typing import Any

from deploy.gateway.envoy.typed import named, typed
from deploy.gateway.operator_file import MIB, Limits

#: Of bytes on their way in one direction of a connection or stream; whole bodies are kept apart.
WINDOW = MIB
#: For the handshake of TLS, and for the first byte behind which a protocol is seen.
HANDSHAKE = "5s"
#: Without a request.
IDLE = "15s"
#: For the client to take some of an answer that is ready.
FLUSH = "15s"
#: Of all these near the limit of memory.
SHORT = "3s"
#: Ends Envoy where one of its threads hangs: the connections that it has would hang with it.
WATCHDOG = {"kill_timeout": "15s"}


def overload_manager(limits: Limits) -> dict[str, Any]:
    """Return what Envoy does near its share of memory: first shrink, then drop the largest."""
    heap = named(
        "envoy.resource_monitors.fixed_heap",
        "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
        max_heap_size_bytes=limits.memory_mib * MIB,
    )
    above: dict[str, dict[str, Any]] = {
        "shrink_heap": {"threshold": {"value": 0.7}},
        "reset_high_memory_stream": {
            "scaled": {"scaling_threshold": 0.75, "saturation_threshold": 0.9}
        },
        "reduce_timeouts": {"scaled": {"scaling_threshold": 0.7, "saturation_threshold": 0.85}},
        "stop_accepting_requests": {"threshold": {"value": 0.92}},
        "stop_accepting_connections": {"threshold": {"value": 0.95}},
    }
    return {
        "refresh_interval": "0.1s",
        "resource_monitors": [heap],
        # Streams that hold a MiB or more are known by what they hold.
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 20},
        "actions": [
            {
                "name": f"envoy.overload_actions.{action}",
                "triggers": [{"name": heap["name"], **trigger}],
            }
            | ({"typed_config": _timers()} if action == "reduce_timeouts" else {})
            for action, trigger in above.items()
        ],
    }


def _timers() -> dict[str, Any]:
    """Return how long may pass without a byte when memory is short; HTTP/1 is not dropped else."""
    return typed(
        "envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
        timer_scale_factors=[
            {"timer": f"HTTP_DOWNSTREAM_{timer}", "min_timeout": SHORT}
            for timer in ("STREAM_IDLE", "STREAM_FLUSH", "CONNECTION_IDLE")
        ],
    )
