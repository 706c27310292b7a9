"""What processes of a job share, with real processes."""

from pathlib import Path

import pytest
from processes import run

from glore_jax.errors import InputError
from glore_jax.parallel import hosts


def test_two_processes_share_what_they_know():
    ended = run(2, [str(Path(__file__).with_name("meeting.py"))])
    assert [one.out.splitlines()[-1] for one in ended] == ["met", "met"]


def test_one_process_alone_is_its_own_lead():
    assert (
        hosts.gather("name", 7) == [7] and hosts.of_lead("name", lambda: 7) == 7 and hosts.share("abc") == list("abc")
    )
    assert hosts.any_of(True) and not hosts.any_of(False) and hosts.lead()
    with hosts.joined(None, None, None), hosts.joined("127.0.0.1:1", 1, 0):
        assert hosts.count() == 1


@pytest.mark.parametrize(
    ("process", "message"),
    [
        (None, "--process missing; give --coordinator, --processes, --process together"),
        (2, "--process=2: expected a number from 0 to 1, for --processes=2"),
    ],
)
def test_half_a_description_of_a_job_is_refused(process: int | None, message: str):
    with pytest.raises(InputError, match=message), hosts.joined("127.0.0.1:1", 2, process):
        pass
