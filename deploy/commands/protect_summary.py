"""What ``reverse-sigmoid protect`` says when it is done: for people, and as JSON."""

from typing import Any

from exporters.onnx_signature import OnnxTensor
from exporters.protect import ProtectedFile


def as_dict(done: ProtectedFile) -> dict[str, Any]:
    """Return everything that was found and written, ready for JSON.

    Shapes are the ones that clients see, -1 where a size is free.
    """
    signature, parameters = done.classifier.signature, done.parameters

    def tensor(one: OnnxTensor) -> dict[str, Any]:
        shape = one.shape(batched=signature.batched)
        return {"name": one.name, "data_type": one.data_type, "shape": shape}

    return {
        "onnx": str(done.classifier.path),
        "repository": str(done.repository),
        "layout": done.classifier.asked.layout,
        "models": list(done.models),
        "inputs": [tensor(one) for one in signature.inputs],
        "output": tensor(signature.scores),
        "labels": [tensor(one) for one in signature.labels],
        "dropped": done.classifier.dropped,
        "scores": done.scores.kind,
        "cut": done.scores.cut.op if done.scores.cut else None,
        "multi_label": done.scores.multi_label,
        "classes": signature.classes,
        "class_axis": signature.class_axis,
        "max_batch_size": signature.max_batch_size,
        "max_client_batch": done.classifier.asked.max_client_batch or signature.max_batch_size,
        "beta": parameters.beta,
        "gamma": parameters.gamma,
        "margin": parameters.margin,
        "verified_rows": done.verified.rows,
        "refused_rows": done.verified.refused,
        "cut_difference": done.verified.cut_difference,
        "files": [str(path) for path in done.files],
        "warnings": done.classifier.warnings,
        "next": f"reverse-sigmoid serve {done.repository}",
    }


def lines(done: ProtectedFile) -> list[str]:
    """Return the summary, line by line."""
    said = as_dict(done)
    scores, count = done.scores, said["classes"]
    if scores.cut is not None:
        holds = f"logits, cut before the graph's {scores.cut.op}"
    elif scores.kind == "logits":
        holds = "logits; clients now get probabilities"
    else:
        holds = "probabilities; the maths is exact from logits only"
    classes = "as many classes as a request has" if count < 0 else f"{count} classes"
    if count == 1:
        classes = "one score, the yes of a yes or no"
    elif scores.multi_label:
        classes = f"{count if count > 0 else 'any number of'} labels, each a yes or no of its own"
    if said["class_axis"] != -1:
        classes += f", on axis {said['class_axis']}"
    batch = (
        f"up to {said['max_client_batch']} rows; Triton merges requests"
        if said["max_batch_size"]
        else "none; Triton runs requests one at a time"
    )
    labels = [f"  label      {_tensor(one)}, passed through" for one in said["labels"]]
    if said["layout"] == "fused":
        holds += "; the defence is in its graph"
    return [
        f"{said['onnx']}, protected as {said['models'][0]} in {said['repository']}",
        *(f"  input      {_tensor(one)}" for one in said["inputs"]),
        f"  output     {_tensor(said['output'])}: {classes}",
        *labels,
        f"  victim     {holds}",
        f"  batch      {batch}",
        f"  defence    beta {said['beta']:g}, gamma {said['gamma']:g}, margin {said['margin']:g}",
        f"  verified   {said['verified_rows']} rows against the original graph",
        f"Next: {said['next']}",
    ]


def _tensor(one: dict[str, Any]) -> str:
    shape = ", ".join("?" if size < 0 else str(size) for size in one["shape"])
    return f"{one['name']} {one['data_type'].removeprefix('TYPE_')} [{shape}]"
