"""Which models an operator's file opens to whom, held against the models that there are."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.gateway.operator_file import Operator
from deploy.repository import model_config, protected
from postprocess.errors import InputError


def against(path: Path, operator: Operator, configs: Mapping[str, Any]) -> Operator:
    """Return what the file says, once it opens no raw scores without saying so.

    Its ``models`` are then all protected ones that it names, and ``raw_models`` the others.

    Args:
        path: of the operator's file, for messages.
        operator: what it says.
        configs: the ``ModelConfig`` of every model, by name.

    Raises:
        InputError: a model does not exist; is not protected, and ``raw`` is not said; ``raw`` is
            said of protected ones alone; or takes more rows in a request than budgets count.
    """
    good = refuse_raw(path, operator, configs, operator.models)
    for client in operator.clients:
        where = f"{path}: clients: {client.name}"
        for model in set(client.models) - configs.keys():
            raise InputError(
                f"{where}: models: {model} is no model of this repository; those are "
                f"{_listed(configs)}"
            )
        if client.raw and good.issuperset(client.models):
            raise InputError(
                f"{where}: raw: expected a model without a defence in its list, got "
                f"{_listed(client.models)}, all protected; leave raw out"
            )
    named = (model for client in operator.clients for model in client.models if model in good)
    return replace(operator, models=tuple(dict.fromkeys((*operator.models, *named))))


def refuse_raw(
    path: Path, operator: Operator, configs: Mapping[str, Any], names: Iterable[str]
) -> set[str]:
    """Refuse models whose clients would get raw scores, or more rows than are counted.

    Args:
        path: of the operator's file, for messages.
        operator: what it says.
        configs: the ``ModelConfig`` of every model, by name.
        names: of the models.

    Returns:
        all protected models that there are.

    Raises:
        InputError: one of the models is none of these, or takes more rows than budgets count.
    """
    faults: dict[str, str] = {}
    found = protected.among(configs)
    for one in found:  # ``none`` is a defence by name alone
        raw_outputs = protected.raw_outputs(configs[one.name], configs)
        if model_config.strings(configs[one.defence]).get("defense") == "none":
            faults[one.name] = f": {one.defence} says defense none"
        elif raw_outputs:
            faults[one.name] = f": no defence makes its output {raw_outputs[0]}"
    good = {one.name for one in found} - faults.keys()
    for model in names:
        who = [one for one in operator.clients if model in one.models and not one.raw]
        if model not in good:
            raw = "; raw scores are for a client with a list of its own and raw: true"
            raise InputError(
                f"{path}: models: {model}, for {_listed(one.name for one in who)}, is no "
                f"protected model of this repository{faults.get(model, '')}; those are "
                f"{_listed(good)}{raw if model in configs else ''}"
            )
        rows = max(1, configs[model].max_batch_size)
        if any(operator.rate or one.budget for one in who) and rows > operator.queries_per_request:
            raise InputError(
                f"{path}: queries_per_request: a request to {model} may have {rows} "
                f"rows, and is counted as {operator.queries_per_request}; write {rows}, "
                "or protect the model with --max-client-batch 1"
            )
    return good


def raw_access(operator: Operator) -> list[str]:
    """Return a line for every client that gets raw scores."""
    return [
        f"RAW: {client.name} gets the scores of {', '.join(raw)}, as its raw: true says"
        for client in operator.clients
        if (raw := [model for model in client.models if model in operator.raw_models])
    ]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
