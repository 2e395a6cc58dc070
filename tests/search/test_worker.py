"""The program of a worker process: a header, then an answer a line."""

import io
import json

from helix_kit._line_workers import serve
from helix_kit.search import worker


def test_each_task_is_answered_in_turn_by_one_evaluator(monkeypatch, capsys):
    made = []

    class Task:
        def __init__(self, line):
            self.number = int(line)

        def run(self, evaluator):
            return [evaluator, self.number**2]

    monkeypatch.setattr(worker, "evaluator_of", lambda header: made.append(header) or header.strip())
    monkeypatch.setattr(worker, "task_of", Task)
    monkeypatch.setattr(worker, "answer_line", json.dumps)
    monkeypatch.setattr("sys.stdin", io.StringIO("header\n3\n4\n"))
    serve(worker.answers)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [["header", 9], ["header", 16]]
    assert made == ["header\n"]


def test_an_answer_is_given_before_the_next_task_is_read(monkeypatch):
    """The planner sends a task only after it has read an answer: a worker that reads ahead would wait for ever."""
    read = []

    def lines():
        for line in ("header", "1", "2"):
            read.append(line)
            yield line

    monkeypatch.setattr(worker, "evaluator_of", lambda header: None)
    monkeypatch.setattr(worker, "task_of", lambda line: type("Task", (), {"run": lambda self, _: line})())
    monkeypatch.setattr(worker, "answer_line", str)
    found = worker.answers(lines())
    assert next(found) == "1" and read == ["header", "1"]
