"""What ``protect`` says of a file that it has protected: for machines, and line by line."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporters.graph.onnx_signature import OnnxTensor
    from exporters.protect import ProtectedFile


def row(said: dict[str, Any]) -> tuple[str, ...]:
    """Return a line of the table of several models."""
    heads = said.get("heads", [said])
    columns = [
        [str(one.get(key, "")) for one in heads] for key in ("scores", "classes", "verified_rows")
    ]
    return said["models"][0], *map(", ".join, columns)


def as_dict(done: "ProtectedFile") -> dict[str, Any]:
    """Return everything that was found and written, ready for JSON.

    Shapes are the ones that clients see, -1 where a size is free.
    """
    signature = done.classifier.signature

    def tensor(one: "OnnxTensor") -> dict[str, Any]:
        shape = one.shape(batched=signature.batched)
        return {"name": one.name, "data_type": one.data_type, "shape": shape}

    heads = [
        {
            "output": tensor(scores),
            "scores": head.scores.kind,
            "cut": head.scores.cut.op if head.scores.cut else None,
            "multi_label": head.scores.multi_label,
            "classes": head.classes,
            "class_axis": head.class_axis,
            "beta": head.parameters.beta,
            "gamma": head.parameters.gamma,
            "margin": head.parameters.margin,
            "verified_rows": head.verified.rows,
            "refused_rows": head.verified.refused,
            "cut_difference": head.verified.cut_difference,
        }
        for scores, head in zip(signature.scores, done.heads, strict=True)
    ]
    return {
        "onnx": str(done.classifier.path),
        "repository": str(done.repository),
        "layout": done.classifier.asked.layout,
        "models": list(done.models),
        "inputs": [tensor(one) for one in signature.inputs],
        **(heads[0] if len(heads) == 1 else {"heads": heads}),
        "labels": [tensor(one) for one in signature.labels],
        "dropped": done.classifier.dropped,
        "max_batch_size": signature.max_batch_size,
        "max_client_batch": done.classifier.asked.max_client_batch or signature.max_batch_size,
        "files": [str(path) for path in done.files],
        "warnings": done.classifier.warnings,
        "next": f"reverse-sigmoid serve {done.repository}",
    }


def lines(done: "ProtectedFile") -> list[str]:
    """Return the summary, line by line."""
    said = as_dict(done)
    heads = said.get("heads", [said])
    batch = (
        f"up to {said['max_client_batch']} rows; Triton merges requests"
        if said["max_batch_size"]
        else "none; Triton runs requests one at a time"
    )
    labels = [f"  label      {_tensor(one)}, passed through" for one in said["labels"]]
    fused = "; the defence is in its graph" if said["layout"] == "fused" else ""
    named = [(f"{one['output']['name']}: " if len(heads) > 1 else "", one) for one in heads]
    return [
        f"{said['onnx']}, protected as {said['models'][0]} in {said['repository']}",
        *(f"  input      {_tensor(one)}" for one in said["inputs"]),
        *(f"  output     {_tensor(one['output'])}: {_classes(one)}" for one in heads),
        *labels,
        *(f"  victim     {name}{_holds(one)}{fused}" for name, one in named),
        f"  batch      {batch}",
        *(f"  defence    {name}{numbers(one)}" for name, one in named),
        *(
            f"  verified   {name}{one['verified_rows']} rows against the original graph"
            for name, one in named
        ),
        f"Next: {said['next']}",
    ]


def _holds(head: dict[str, Any]) -> str:
    if head["cut"] is not None:
        return f"logits, cut before the graph's {head['cut']}"
    if head["scores"] == "logits":
        return "logits; clients now get probabilities"
    return "probabilities; the maths is exact from logits only"


def _classes(head: dict[str, Any]) -> str:
    count = head["classes"]
    classes = "as many classes as a request has" if count < 0 else f"{count} classes"
    if count == 1:
        classes = "one score, the yes of a yes or no"
    elif head["multi_label"]:
        classes = f"{count if count > 0 else 'any number of'} labels, each a yes or no of its own"
    return classes if head["class_axis"] == -1 else f"{classes}, on axis {head['class_axis']}"


def numbers(head: dict[str, Any]) -> str:
    """Return the parameters of a defence that can be tuned, in words."""
    return f"beta {head['beta']:g}, gamma {head['gamma']:g}, margin {head['margin']:g}"


def _tensor(one: dict[str, Any]) -> str:
    shape = ", ".join("?" if size < 0 else str(size) for size in one["shape"])
    return f"{one['name']} {one['data_type'].removeprefix('TYPE_')} [{shape}]"
