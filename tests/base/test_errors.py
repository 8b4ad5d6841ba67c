"""What the errors of this package say, and what they keep."""

import pickle

from funcpipe_trio import CircuitOpen, PlanError, WorkerError


def test_an_open_circuit_says_when_to_try_again():
    """None if nobody knows."""
    error = CircuitOpen("the circuit is open", 2.5)

    assert (str(error), error.retry_after) == ("the circuit is open", 2.5)
    assert CircuitOpen("the circuit is open").retry_after is None


def test_an_error_of_a_worker_is_told_by_type_and_text():
    """Also behind a pickle, which makes it anew of its arguments."""
    error = WorkerError("shop.Broken", "no stock")
    again = pickle.loads(pickle.dumps(error))

    assert (str(error), error.args) == ("shop.Broken: no stock", ("shop.Broken", "no stock"))
    assert (again.type_name, again.text, str(again)) == ("shop.Broken", "no stock", "shop.Broken: no stock")


def test_problems_of_a_plan_have_a_line_each():
    error = PlanError("no source", "no sink")

    assert (error.problems, str(error)) == (("no source", "no sink"), "no source\nno sink")
