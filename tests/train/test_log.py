import csv
import math

import pytest

from sciflow.train.history import History
from sciflow.train.log import CsvLogger, TensorBoardLogger


def test_history_columns_are_as_long_as_the_steps():
    history = History()
    history.append(1, {"loss": 3.0})
    history.append(5, {"loss": 2.0, "eval/w1": 0.5})
    assert history.step == [1, 5] and history["loss"] == [3.0, 2.0]
    assert math.isnan(history["eval/w1"][0]) and history["eval/w1"][1] == 0.5
    assert history.series("eval/w1") == ([5], [0.5]) and history.row(-1)["loss"] == 2.0
    assert repr(history) == "History(2 rows to step 5: loss, eval/w1)"
    with pytest.raises(KeyError, match="no column 'w2'; there are loss, eval/w1"):
        history["w2"]
    other = History()
    other.load_state_dict(history.state_dict())
    assert other.step == history.step and other.series("eval/w1") == ([5], [0.5])


def read(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_csv_follows_the_history_and_drops_rows_after_a_resume(tmp_path):
    history, log = History(), CsvLogger(tmp_path)
    assert not log.path.exists()  # nothing is made before there is something to log
    for step in (1, 2):
        history.append(step, {"loss": 0.1 * step})
        log.write(history)
    saved = history.state_dict()
    history.append(3, {"loss": 0.3, "eval/w1": 1.0})
    log.write(history)
    log.close()
    assert read(log.path) == [
        ["step", "loss", "eval/w1"],
        ["1", "0.1", ""],
        ["2", "0.2", ""],
        ["3", repr(0.3), "1.0"],
    ]
    resumed, log = History(), CsvLogger(tmp_path)
    resumed.load_state_dict(saved)
    resumed.append(4, {"loss": 9.0})
    log.write(resumed)
    log.close()
    assert [row[0] for row in read(log.path)] == ["step", "1", "2", "4"]


def test_tensorboard_holds_the_scalars(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history, log = History(), TensorBoardLogger(tmp_path)
    for step in (1, 2):
        history.append(step, {"loss": 1.0 / step} | ({"eval/w1": 4.0} if step == 2 else {}))
        log.write(history)
    log.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 0.5)]
    assert [(e.step, e.value) for e in events.Scalars("eval/w1")] == [(2, 4.0)]
