"""``reverse-sigmoid protect --answers KIND --also KIND``: what clients get, and a second model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.commands.calibrate import CalibrateCommand
from deploy.commands.many import Told
from postprocess.errors import InputError

if TYPE_CHECKING:
    from deploy.commands.protect import ProtectCommand
    from postprocess.calibration import Calibration


def refuse(command: "ProtectCommand", public: Path, *, anew: bool = True) -> None:
    """Refuse what cannot be made of a model, before anything is written.

    Args:
        command: with its options.
        public: folder that the protected model gets, or has.
        anew: it is protected now, and gives deceptive answers unless another kind is said.

    Raises:
        InputError: an unknown kind, rows that are missing, of no use or cannot be read, or a second
            model that cannot be.
    """
    from deploy.existing import second
    from deploy.repository.answers import KINDS

    for option, kind in (("--answers", command.answers), ("--also", command.also)):
        if kind not in ("", *KINDS):
            raise InputError(f"{option}: expected {', '.join(KINDS)}, got {kind!r}")
        if kind == "calibrated" and not command.query_set:
            raise InputError(
                f"{option} calibrated: expected rows that the classifier was not trained on: "
                "--query-set FILE.npz, with an array for each input, by its name, and labels; or "
                "protect it without, and then calibrate it"
            )
        if kind == "calibrated" and len(command.output or []) > 1:
            raise InputError(
                f"{option} calibrated: each head has a table of its own: protect it without, and "
                f"then calibrate {public} --output {(command.output or [''])[0]} --write"
            )
    if command.query_set:
        if "calibrated" not in (command.answers, command.also):
            raise InputError("--query-set: only with --answers calibrated or --also calibrated")
        _calibrate(command, public).drawn()
    if command.also:
        if command.also == (command.answers or ("deceptive" if anew else "")):
            raise InputError(f"--also {command.also}: the public model's own answers are that kind")
        if command.layout == "fused":
            raise InputError(
                f"--also {command.also}: expected --layout ensemble, in which both share one "
                "classifier; a fused model holds its weights"
            )
        second.refuse(public, command.also, force=command.force)


def make(command: "ProtectCommand", public: Path, told: Told) -> Told:
    """Have a protected model answer as the options say, and return all that is told of it.

    Raises:
        InputError: it cannot; the model is protected, and answers as before.
    """
    from deploy.existing import second
    from deploy.repository import answers, question_refresh, retuning

    if not command.answers and not command.also:
        return told
    said, lines, warnings = dict(told.as_dict), [*told.lines], [*told.warnings]
    try:
        table: Calibration | None = None
        if command.query_set:
            table, report = _calibrate(command, public).made()
            said["calibration"] = report
            lines += _worth(report)
        if command.also:
            kind, of = command.also, table if command.also == "calibrated" else None
            names = second.add(
                public, kind, lambda folder: answers.put(folder, kind, of), force=command.force
            )
            said["also"] = names
            lines.append(f"  also       {names[0]}: {answers.KINDS[kind]}, of the same classifier")
            warnings += question_refresh.refresh(public.with_name(names[0]))
        if command.answers:
            kind, of = command.answers, table if command.answers == "calibrated" else None
            answers.put(public, kind, of)
            said["answers"] = kind
            lines.append(f"  answers    {kind}: {answers.KINDS[kind]}")
            warnings += question_refresh.refresh(public)
    except (InputError, OSError) as error:
        defences = {one.after.defense for one in retuning.plan(public, {})}
        now = " and ".join(sorted(defences)).replace("reverse_sigmoid", "deceptive")
        raise InputError(
            f"{public} is protected, its answers are as they were: {now}: {error}"
        ) from None
    last = [one for one in lines if one.startswith(("Next: ", "Undo: ", "A server "))]
    return Told(said, [*(one for one in lines if one not in last), *last], warnings)


def _worth(report: dict[str, Any]) -> list[str]:
    from load_tests.calibrate.calibration_report import judged_by

    what = "yes or no outputs" if report["single"] else "classes"
    bits = f"{report['levels']} levels of {report['classes']} {what}, {report['bits']:.1f} bits"
    eces = ", ".join(f"{worth['ece']:.3f} {name}" for name, worth in report["answers"].items())
    return [
        f"  calibrated {bits} a query",
        *([f"  ECE        {eces}, on {judged_by(report)}"] if eces else []),
    ]


def _calibrate(command: "ProtectCommand", public: Path) -> CalibrateCommand:
    outputs = command.output or []
    return CalibrateCommand(
        model=public,
        query_set=command.query_set,
        output=outputs[0] if len(outputs) == 1 else "",
    )
