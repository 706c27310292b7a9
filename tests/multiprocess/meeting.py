"""A script for each process of a job: what the processes hand in comes to all of them, in order."""

import os

from glore_jax.parallel import hosts, votes


def meet(index: int, count: int) -> None:
    with hosts.joined(os.environ["GLORE_COORDINATOR"], count, index):
        assert (hosts.index(), hosts.count(), hosts.lead()) == (index, count, index == 0)
        large = bytes([index]) * (100_000 * index)  # of more than one chunk, but for process 0
        assert hosts.gather("large", large) == [bytes([i]) * (100_000 * i) for i in range(count)]
        assert hosts.gather("mine", {"index": index}) == [{"index": i} for i in range(count)]
        assert hosts.of_lead("choice", lambda: f"of {index}") == "of 0"
        assert [hosts.any_of(index == i) for i in range(count + 1)] == [True] * count + [False]
        shares = hosts.gather("shares", hosts.share(range(7)))
        assert sorted(n for share in shares for n in share) == list(range(7))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        vote = votes.Votes(2)
        heard = [vote.of(index == 1 and step == 3, False) for step in range(6)]
        assert heard == [[step == 4, False] for step in range(6)]
        print("met")


if __name__ == "__main__":
    meet(int(os.environ["GLORE_PROCESS"]), int(os.environ["GLORE_PROCESSES"]))
