"""What a request costs, and whom."""

from typing import Any

from deploy.gateway.operator_file import Operator

#: The header that carries the client's name behind the check of its API key.
CLIENT = "x-client-id"
#: Namespace and key of the metadata that keeps that name; nobody else can write there.
CLIENT_METADATA = ("gateway", "client")


def counts_here(operator: Operator) -> bool:
    """Return whether the gateway itself counts queries, not the rate limit service alone."""
    shared = operator.ratelimit_service is not None
    return operator.rate is not None or (
        not shared and any(client.budget for client in operator.clients)
    )


def counted(operator: Operator) -> dict[str, Any]:
    """Return Envoy's RateLimit: a request costs its client the most rows that it may have."""
    return {
        "actions": [{"request_headers": {"header_name": CLIENT, "descriptor_key": "client"}}],
        "hits_addend": {"number": operator.queries_per_request},
    }
