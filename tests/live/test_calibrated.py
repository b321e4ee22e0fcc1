"""Calibrated answers, taken up and given up again by the real server while it is asked."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from commands import call_command
from serving import DEFENCE, IMAGES, Load

from exporters.files.atomic_file import write_text
from load_tests.asking.endpoint import Endpoint, EndpointError
from postprocess import calibration, question
from postprocess.calibrated import rows


def calibrate(serving, *more):
    done = call_command("calibrate", serving.repository / "digits", *more, cwd=serving.repository)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ready(serving):
    """What a container's health check says, "" where all is well."""
    done = subprocess.run(
        [sys.executable, "-m", "postprocess.ready", "digits", "--url", serving.http_url,
         "--repository", str(serving.repository)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stderr


def tables(serving):
    return list((serving.repository / DEFENCE).glob("calibration-*.json"))


def table_of(serving):
    name = re.search(r"calibration-\w+\.json", serving.config.read_text())[0]
    return calibration.read(serving.config.parent / name, where="")


@pytest.mark.slow
def test_a_served_model_takes_up_calibrated_answers_and_goes_back(serve):
    with serve("--model-control-mode", "poll") as serving, Load(serving):
        data = ("--data", "digits", "--levels", 6)
        report = json.loads(calibrate(serving, *data, "--write", "--json"))
        assert report["answers"]["calibrated"]["accuracy"] == report["answers"]["raw"]["accuracy"]
        table = table_of(serving)
        wanted = rows(serving.logits, table, probabilities=False)

        def calibrated():
            return np.abs(serving.answer() - wanted).max() < 1e-6

        serving.wait_until(calibrated)
        assert (serving.answer().argmax(axis=1) == serving.logits.argmax(axis=1)).all()
        serving.wait_for(f"{DEFENCE}: new parameters in force: ")
        assert serving.status["state"] == "ready"

        calibrate(serving, *data[:2], "--levels", 2, "--write")
        table = table_of(serving)
        wanted = rows(serving.logits, table, probabilities=False)
        serving.wait_until(calibrated)

        for path in tables(serving):
            path.write_text("{")
        serving.edit('"1.5"', '"1.4"')
        serving.wait_for("EDIT REFUSED")
        assert calibrated()  # the one that was loaded

        calibrate(serving, "--undo")
        serving.wait_until(lambda: serving.answers_with(beta=1.4))


@pytest.mark.slow
def test_images_that_make_no_scores_are_refused(serve):
    with serve("--model-control-mode", "poll") as serving:
        calibrate(serving, "--data", "digits", "--write")
        serving.wait_for(f"{DEFENCE}: new parameters in force: ")
        with Endpoint(serving.url, "digits") as endpoint:
            with pytest.raises(EndpointError, match="row 0 of the request cannot be answered"):
                endpoint(np.full_like(IMAGES[:1], np.nan))
            assert endpoint(IMAGES[:1]).shape == (1, 10)


@pytest.mark.slow
def test_a_calibrated_model_is_ready_and_is_not_without_its_defence(serve):
    with serve("--model-control-mode", "poll") as serving:
        calibrate(serving, "--data", "digits", "--write")
        serving.wait_for(f"{DEFENCE}: new parameters in force: ")
        (kept,) = question.read(question.path_in(serving.repository, "digits"))
        assert kept.looks.flat
        serving.wait_until(lambda: serving.status["state"] == "ready")
        assert ready(serving) == ""

        text = serving.config.read_text()
        none = re.sub(r'parameters \{ key: "calibration".*\n', "", text)
        write_text(serving.config, none.replace('"calibrated"', '"none"'))
        serving.wait_until(lambda: serving.status["state"] == "failed")
        assert "says defense none" in ready(serving)

        write_text(serving.config, text)
        serving.wait_until(lambda: serving.status["state"] == "ready")
        assert ready(serving) == ""
