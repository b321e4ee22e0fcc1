"""What an operator's budgets mean to Prometheus and to the rate limit service."""

from typing import Any

from deploy.gateway.envoy.filters import DOMAIN
from deploy.gateway.operator_file import PERIODS, Budget, Client, Operator

#: Share of a budget at which an operator wants to know.
NEARLY = 0.8


def budget_rules(operator: Operator) -> dict[str, Any]:
    """Return a rule for every client that has a budget, to be written as YAML."""
    rules = [
        _nearly_spent(client, client.budget, operator.queries_per_request)
        for client in operator.clients
        if client.budget is not None
    ]
    return {"groups": [{"name": "reverse_sigmoid_budgets", "rules": rules}]}


def shared_budgets(operator: Operator) -> dict[str, Any]:
    """Return the configuration of envoyproxy/ratelimit, to be written as YAML."""
    limits: dict[str, dict[str, Any]] = {
        one.name: {"unit": _period(one.budget), "requests_per_unit": one.budget.queries}
        if one.budget
        else {"unlimited": True}
        for one in operator.clients
    }
    return {
        "domain": DOMAIN,
        "descriptors": [
            {"key": "client", "value": name, "rate_limit": limit} for name, limit in limits.items()
        ],
    }


def _period(budget: Budget) -> str:
    return {seconds: name for name, seconds in PERIODS.items()}[budget.period_s]


def _nearly_spent(client: Client, budget: Budget, cost: int) -> dict[str, Any]:
    spent = (
        f'sum(increase(envoy_vhost_vcluster_upstream_rq{{envoy_virtual_cluster="{client.name}"}}'
        f"[{budget.period_s}s])) * {cost}"
    )
    return {
        "alert": "QueryBudgetNearlySpent",
        "expr": f"{spent} > {NEARLY * budget.queries:g}",
        "labels": {"severity": "warning", "client": client.name},
        "annotations": {
            "summary": f"{client.name} has spent over {NEARLY:.0%} of its {budget.queries} queries "
            f"a {_period(budget)}"
        },
    }
