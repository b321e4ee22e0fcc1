import os
import signal
import subprocess
import sys

from exporters.files import owned_folders

OWNS = (
    "import sys, time, pathlib; from exporters.files import owned_folders;"
    "lock = owned_folders.own(pathlib.Path(sys.argv[1]));"
    "print('owned', flush=True); time.sleep(600)"
)


def test_a_folder_goes_once_its_owner_was_killed_and_not_before(tmp_path):
    folder, foreign = tmp_path / "reverse-sigmoid-gateway-a", tmp_path / "reverse-sigmoid-mine"
    for each in (folder, foreign):
        each.mkdir()
        (each / "tls.key").write_text("secret")
    command = [sys.executable, "-c", OWNS, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "owned\n"
        owned_folders.remove_orphans(tmp_path, "reverse-sigmoid-")
        assert (folder / "tls.key").is_file()
        os.kill(owner.pid, signal.SIGKILL)
    owned_folders.remove_orphans(tmp_path, "reverse-sigmoid-")
    assert not folder.exists()
    assert (foreign / "tls.key").is_file()
