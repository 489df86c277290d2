"""What a steady client saw, as figures; and what a failed request is called."""

from __future__ import annotations

import http.client
import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.probe import Refused, reason
from chaos.requests import Request, figures, lost, pause


def request(began: float, seconds: float = 0.1, error: str = "") -> Request:
    return Request(kind="read", began=began, ended=began + seconds, error=error)


def test_the_gap_is_the_longest_time_without_an_answer() -> None:
    seen = [request(1), request(2, error="time-out"), request(5), request(6)]
    found = figures(seen, 0, 8)
    assert found.gap == pytest.approx(4.0)  # from the answer at 1.1 to that at 5.1
    assert (found.asked, found.failed, found.errors) == (4, 1, {"time-out": 1})


def test_an_answer_that_came_late_has_kept_its_client_waiting() -> None:
    assert figures([request(1), request(2, seconds=3), request(6)], 0, 7).gap == pytest.approx(3.9)


def test_silence_to_the_end_is_a_gap_too() -> None:
    assert figures([request(1)], 0, 30).gap == pytest.approx(28.9)
    assert figures([], 10, 30).gap == 20


def test_only_what_began_in_the_time_counts() -> None:
    found = figures([request(1, error="refused"), request(5), request(9, error="refused")], 4, 8)
    assert (found.asked, found.failed, found.spread) == (1, 0, 0)


def test_the_spread_is_from_the_first_failure_to_the_last() -> None:
    seen = [request(1), request(2, error="refused"), request(3), request(4.5, error="cut off"), request(5)]
    assert figures(seen, 0, 6).spread == pytest.approx(2.5)


moments = st.floats(min_value=0, max_value=100)


@settings(deadline=None)
@given(st.lists(st.tuples(moments, st.sampled_from(["", "time-out"])), max_size=30))
def test_a_gap_is_never_longer_than_the_time_and_one_more_answer_never_lengthens_it(
    drawn: list[tuple[float, str]],
) -> None:
    seen = [request(began, 0, error) for began, error in drawn]
    found = figures(seen, 0, 100)
    assert 0 <= found.gap <= 100 and 0 <= found.failed <= found.asked
    assert figures([*seen, request(50, 0)], 0, 100).gap <= found.gap


def test_a_client_that_stood_still_is_told_from_a_cluster_that_does_not_answer() -> None:
    silent = [request(n / 10, seconds=2, error="time-out") for n in range(100)]
    assert pause(silent, 0, 10) == pytest.approx(0.1)
    assert pause([r for r in silent if not 3 < r.began < 7], 0, 10) == pytest.approx(4.0)
    assert pause([], 0, 10) == 10


def test_lost_is_what_was_acknowledged_and_is_not_there() -> None:
    assert lost([3, 1, 2], [1, 4]) == [2, 3]
    assert lost([1, 2], [2, 1, 3]) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError("timed out"), "time-out"),
        (ConnectionRefusedError(), "refused"),
        (ConnectionResetError(), "cut off"),
        (http.client.RemoteDisconnected("closed"), "cut off"),
        (ssl.SSLEOFError(8, "EOF"), "cut off"),
        (OSError(113, "No route to host"), "no route to host"),
        (Refused("status 500"), "status 500"),
        (http.client.BadStatusLine("x"), "BadStatusLine"),
    ],
)
def test_a_failure_has_a_name_that_can_be_counted(error: Exception, said: str) -> None:
    assert reason(error) == said
