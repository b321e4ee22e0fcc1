"""The questions beside protected models, brought up to date when parameters change."""

from pathlib import Path
from typing import Any

from deploy.repository import model_config, retuning, victim_graph
from exporters import question
from exporters.files.atomic_file import write_text
from exporters.fusing import fused
from exporters.graph import onnx_graph
from exporters.graph.onnx_run import Feed
from postprocess import defence_config
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.question import FILE, Question, read, text_of


def refresh(folder: Path) -> list[str]:
    """Bring the questions of those models up to date that a changed folder has a part in.

    Args:
        folder: of a public model, or of the defence in one; its files are the new ones.

    Returns:
        warnings: what health checks cannot tell any more.
    """
    warnings = []
    for path in sorted(folder.parent.glob(f"*/{FILE}")):
        name = path.parent.name
        try:
            config = model_config.read(path.with_name("config.pbtxt"))
            if folder.name not in (name, *model_config.step_names(config)):
                continue
            old = read(path)
            new = [_anew(folder.parent, name, one) for one in old]
            if new:
                write_text(path, text_of(new))
            for before, after in zip(old, new, strict=True):
                if before.looks.tells_raw and not after.looks.tells_raw:
                    which = name if len(old) == 1 else f"{name}, output {after.looks.output}"
                    # A confident raw answer is near the label alone, and near the surest level.
                    levels = after.parameters["defense"] == "calibrated"
                    rows = "rows that it is unsure of" if levels else "confident rows"
                    warnings.append(
                        f"{which}: health checks cannot tell its answers from raw ones now; "
                        f"protect it again with {rows} in --sample"
                    )
        except InputError as error:
            warnings.append(f"{path} is left as it was: {error}")
    return warnings


def _anew(repository: Path, name: str, old: Question) -> Question:
    output = old.looks.output
    classifier, parameters = victim_graph.find(repository, name, output)
    opened = classifier.session()

    def raw(feed: Feed) -> Any:
        return opened(feed, [classifier.output])[classifier.output]

    ranks = {one.name: len(one.shape) for one in opened.inputs}
    if not {one.name for one in old.inputs} <= ranks.keys():
        raise InputError(f"other steps stand before its classifier, {classifier.path}")
    model = question.AnswerSource(
        raw,
        _defence(repository, name, output, parameters, classifier.path),
        parameters,
        output,
        batched=model_config.read(repository / name / "config.pbtxt").max_batch_size > 0,
        axis=old.looks.axis,
    )
    return question.again(model, old, [ranks[one.name] for one in old.inputs])


def _defence(
    repository: Path, name: str, output: str, parameters: Parameters, graph: Path
) -> Postprocessor:
    """Return the defence with the table that its parameters name."""
    if parameters.calibration is None:
        return Postprocessor(parameters)
    if model_config.fused_output(model_config.read(repository / name / "config.pbtxt")) is not None:
        return Postprocessor(parameters, table=fused.read_table(onnx_graph.load(graph)))
    (config,) = retuning.defences_of(repository / name, output)
    table = defence_config.read_table(parameters, directory=config.parent, where=str(config))
    return Postprocessor(parameters, table=table)
