"""Logs that give way: no line is lost, and no more files than said stay."""

from deploy.processes import log_files


def test_the_oldest_log_goes_when_a_new_one_begins(tmp_path):
    log = tmp_path / "access.jsonl"
    for number in range(8):
        log.write_text(f"{number}")
        log_files.move_away(log)
        assert not log.exists()
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {f"access.jsonl.{age}": f"{8 - age}" for age in range(1, log_files.KEPT + 1)}


def test_who_keeps_a_log_open_goes_on_in_it_from_its_beginning(tmp_path):
    log = tmp_path / "triton.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"before\n")
        log_files.copy_away(log)
        writer.write(b"after\n")
    assert log.read_bytes() == b"after\n"
    assert log.with_name("triton.log.1").read_bytes() == b"before\n"


def test_only_a_log_that_has_grown_has_to_give_way(tmp_path, monkeypatch):
    monkeypatch.setattr(log_files, "MOST_BYTES", 10)
    log = tmp_path / "log"
    assert not log_files.outgrown(log)
    log.write_bytes(b"x" * 9)
    assert not log_files.outgrown(log)
    log.write_bytes(b"x" * 10)
    assert log_files.outgrown(log)
