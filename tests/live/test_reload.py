"""Edits of config.pbtxt under load, on the real server."""

import json
import shutil

import pytest
from serving import DEFENCE, Load

from exporters.files.atomic_file import write_text
from load_tests.asking.endpoint import connect


def load(serving, model, **options):
    with connect(serving.url) as client:
        client.load_model(model, **options)


def test_in_poll_mode_good_edits_take_effect_and_bad_ones_are_refused_aloud(serve, tmp_path):
    with serve("--model-control-mode", "poll") as serving, Load(serving) as clients:
        shipped = serving.config.read_text()
        serving.edit('"1.5"', '"0.5"')
        serving.wait_until(lambda: serving.answers_with(beta=0.5))
        serving.wait_for(f"{DEFENCE}: new parameters in force: beta 0.5, ")

        serving.edit('"0.5"', '"-1"')
        serving.wait_for("EDIT REFUSED")
        (line,) = [line for line in serving.said.splitlines() if "EDIT REFUSED" in line]
        reason = f"{serving.config}: parameter beta: expected a number from 0.001 to 100, got -1"
        assert f" {DEFENCE}: EDIT REFUSED: {reason}; still serving beta 0.5, " in line
        serving.wait_until(lambda: serving.status["models"]["digits"]["rejected_edit"] == reason)
        assert serving.answers_with(beta=0.5)

        write_text(serving.config, shipped + "garbage {\n")
        line_number = shipped.count("\n") + 1
        serving.wait_for(f'{serving.config}: {line_number}: Message type "inference.ModelConfig" '
                         'has no field named "garbage"')  # fmt: skip
        assert serving.answers_with(beta=0.5)

        write_text(serving.config, shipped)
        serving.wait_until(lambda: serving.answers_with(beta=1.5))
        serving.wait_for("new parameters in force: beta 1.5, ")
        serving.wait_until(lambda: serving.status["models"]["digits"]["rejected_edit"] is None)
        # The status file is written after the line is said.
        serving.wait_until(
            lambda: serving.status["models"]["digits"]["parameters"]["beta"] == "1.5"
        )
        assert serving.status["state"] == "ready"
        assert serving.said.count("EDIT REFUSED") == 2
        assert "DOWN" not in serving.said
        clients.__exit__()
        assert clients.errors == []
        assert clients.raw_answers() == 0
        assert clients.answers_other_than(1.5, 0.5) == 0

        twin = shutil.copytree(serving.repository / "digits", tmp_path / "twin")
        config = twin / "config.pbtxt"
        config.write_text(config.read_text().replace('name: "digits"', 'name: "twin"'))
        came = twin.rename(serving.repository / "twin")
        serving.wait_for("twin: watched from now on")
        shutil.rmtree(came)
        serving.wait_for("twin: removed from the repository, no longer watched")
        assert serving.stop() == 0
        assert serving.status["state"] == "stopped"


def test_in_poll_mode_what_is_gone_is_missed_and_a_poller_that_hangs_is_told(serve):
    with serve("--model-control-mode", "poll") as serving:
        kept = serving.config.rename(serving.config.with_name("kept"))
        gone = f"FILE GONE: {serving.config}: gone; Triton could not load the model again"
        serving.wait_for(f"{DEFENCE}: {gone}")
        serving.wait_until(lambda: serving.status["models"]["digits"]["rejected_edit"] is not None)
        kept.rename(serving.config)
        serving.wait_until(lambda: serving.status["models"]["digits"]["rejected_edit"] is None)

        # A load that does not find its code hangs, and Triton's poller with it.
        code = serving.config.with_name("1") / "model.py"
        text = code.read_text()
        code.unlink()
        serving.wait_for(f"{DEFENCE}: FILE GONE: {code}: gone")
        log = serving.status_file.with_name("triton.log")
        serving.wait_until(lambda: "Python model file not found" in log.read_text())
        assert serving.answers_with(beta=1.5)
        code.write_text(text)
        serving.edit('"1.5"', '"1.2"')
        serving.wait_until(lambda: serving.answers_with(beta=1.2))
        assert f"digits: DOWN: {DEFENCE}: edited, and Triton hangs at the load of" in serving.said
        serving.edit('"1.2"', '"1.3"')
        serving.wait_until(lambda: serving.answers_with(beta=1.3))
        assert serving.status["restarts"] == 1
        assert serving.stop() == 0


def test_in_explicit_mode_an_edit_takes_effect_when_it_is_loaded(serve):
    with serve("--model-control-mode", "explicit") as serving, Load(serving) as clients:
        serving.edit('"1.5"', '"0.5"')
        serving.wait_for(f"takes effect with POST /v2/repository/models/{DEFENCE}/load")
        assert serving.answers_with(beta=1.5)
        load(serving, DEFENCE)
        serving.wait_until(lambda: serving.answers_with(beta=0.5))
        serving.wait_for(f"{DEFENCE}: new parameters in force: beta 0.5, ")
        serving.edit('"0.5"', '"-1"')
        with pytest.raises(Exception, match="parameter beta: expected a number"):
            load(serving, DEFENCE)
        serving.wait_for("EDIT REFUSED")
        assert serving.answers_with(beta=0.5)
        clients.__exit__()
        assert clients.errors == []
        assert clients.raw_answers() == 0
        assert clients.answers_other_than(1.5, 0.5) == 0
        assert serving.stop() == 0


def test_a_defence_that_is_taken_out_by_a_load_request_is_put_back(serve):
    tensor = {"name": "image", "data_type": "TYPE_FP32", "dims": [8, 8, 1]}
    scores = {"name": "scores", "data_type": "TYPE_FP32", "dims": [10]}
    step = {
        "model_name": "digits_classifier",
        "model_version": -1,
        "input_map": {"image": "image"},
        "output_map": {"scores": "scores"},
    }
    bare = {
        "platform": "ensemble",
        "max_batch_size": 256,
        "input": [tensor],
        "output": [scores],
        "ensemble_scheduling": {"step": [step]},
    }
    with serve("--model-control-mode", "explicit") as serving:
        load(serving, "digits", config=json.dumps(bare))
        serving.wait_for_recovery()
        assert "digits: UNPROTECTED: answered with the victim's own scores" in serving.said
        serving.wait_until(lambda: serving.answers_with(beta=1.5))
        assert serving.status["restarts"] == 1
        assert serving.stop() == 0


def test_without_model_control_an_edit_waits_for_the_next_start(serve):
    with serve("--model-control-mode", "none") as serving:
        serving.edit('"1.5"', '"0.5"')
        serving.wait_for("takes effect when serve is started again")
        assert serving.answers_with(beta=1.5)
        assert serving.stop() == 0
