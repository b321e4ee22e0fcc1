"""What a config.pbtxt leaves out, as Triton completes it: asked of a server, then written out."""

from pathlib import Path
from typing import Any

from deploy.existing import served, staging
from deploy.existing.served import NotServedHereError
from deploy.repository import model_config
from exporters.protect import folder_beside
from exporters.repository import versions
from postprocess.errors import InputError

_COMPLETED = "# What follows was left to Triton to complete, and is as it completed it."
_FIELDS = ("backend", "max_batch_size", "input", "output", "dynamic_batching")


def complete(folder: Path, text: str, *, url: str, near: Path) -> str:
    """Return a config.pbtxt with all that Triton adds to it and an ensemble of it has to know.

    Args:
        folder: of the model.
        text: of its config.pbtxt, "" where it has none.
        url: HOST:PORT of a Triton that serves it; "": the embedded one is asked.
        near: a repository, beside which the embedded one may find it.

    Raises:
        InputError: no server completes it.
    """
    path = folder / "config.pbtxt"
    lacks = "declares no input or no output" if path.is_file() else "no such file"
    try:
        whole = _asked(folder, url, near)
    except NotServedHereError as error:
        reason = f"the embedded Triton does not complete it: {error}"
    else:
        if whole.input and whole.output:
            return _completed(text, path, whole)
        reason = f"{url or 'the embedded Triton'} does not complete it"
    files = [one / "model.onnx" for one in versions.folders(folder)]
    itself = f"; or protect {files[-1]} itself" if files and files[-1].is_file() else ""
    raise InputError(
        f"{path}: {lacks}, and {reason}; write there what a server of it shows at "
        f"/v2/models/{folder.name}/config, or give --url HOST:PORT of that server{itself}"
    )


def _asked(folder: Path, url: str, near: Path) -> Any:
    """Return a model's config as a server that serves it has it."""
    if url:
        with served.at(url, folder.name, [], batched=False) as model:
            return model.config()
    with folder_beside(near) as work:
        staging.take_for_here(folder, work / "models" / folder.name)
        with served.here(work / "models", folder.name, batched=False) as model:
            return model.config()


def _completed(text: str, path: Path, whole: Any) -> str:
    """Return the text, and behind it the fields that it does not have."""
    from google.protobuf import text_format

    there = model_config.parse(text, path)
    more = type(whole)()
    for name in _FIELDS:
        known, value = getattr(there, name), getattr(whole, name)
        if name == "backend" and there.platform:
            continue
        if name == "dynamic_batching":
            if whole.HasField(name) and not there.WhichOneof("scheduling_choice"):
                more.dynamic_batching.SetInParent()
        elif not known and value:
            more.MergeFrom(type(whole)(**{name: value}))
    ended = text if text.endswith("\n") or not text else text + "\n"
    return f"{ended}{_COMPLETED}\n{text_format.MessageToString(more)}"
