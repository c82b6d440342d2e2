"""A workload's turns as requests: what is known of their lengths, what is assumed and said, and what is refused."""

import pytest

from perjoule.bench.estimates.asked import Asked, asked_of, paced
from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.workloads.workload import CHAT, IMAGES, Turn, Workload


def of(*turns, **more):
    return asked_of(Workload("made", "made", turns, len(turns)), **more)


def test_lengths_and_times_are_taken_as_they_are():
    """Nothing assumed, nothing said."""
    assert of(Turn(1.5, 10, 20), Turn(None, 1, 2)) == ([Asked(10, 20, 1.5), Asked(1, 2)], [])


def test_turns_of_a_session_follow_each_other():
    """Each the one before it in the same session, after its think time."""
    found, _ = of(Turn(0.0, 1, 1, session="a"), Turn(0.0, 2, 2, session="b"), Turn(None, 3, 3, session="a", think_s=5.0))
    assert [one.follows for one in found] == [-1, -1, 0]
    assert found[2].think_s == 5.0


def test_a_body_is_told_by_its_characters_and_its_cap():
    """Four characters a token, roles and names not counted, and an answer as long as it may be: both are said."""
    body = {"messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 30}
    found, notes = of(Turn(body=body, endpoint=CHAT, output_tokens=30))
    assert found == [Asked(100, 30)]
    assert ["4 characters" in notes[0], "too long" in notes[1]] == [True, True]
    found, notes = of(Turn(body=body, endpoint=CHAT, output_tokens=30), output_tokens=12)
    assert (found[0].output, len(notes)) == (12, 1)


def test_an_answer_of_unknown_length_is_refused():
    """Unless a length is told."""
    with pytest.raises(EstimateError, match="request 0 does not tell how long its answer is, expected --output-tokens"):
        of(Turn(body={"prompt": "hello"}))
    assert of(Turn(body={"prompt": "hello"}), output_tokens=7)[0][0].output == 7


def test_pictures_are_refused():
    """There is no model of diffusion here."""
    with pytest.raises(EstimateError, match="got requests for /v1/images/generations, expected text"):
        of(Turn(body={"prompt": "a cat"}, endpoint=IMAGES))


def test_a_prefix_cache_knows_the_first_blocks_that_came_before():
    """Blocks of 512: the second turn shares two of three, the third none at its beginning, the fourth all but its last token."""
    turns = (Turn(0.0, 1500, 1, (1, 2, 3)), Turn(1.0, 1500, 1, (1, 2, 9)), Turn(2.0, 900, 1, (7, 2)), Turn(3.0, 1024, 1, (1, 2)))
    assert [one.cached for one in of(*turns, prefix_cache=True)[0]] == [0, 1024, 0, 1023]
    found, notes = of(*turns)
    assert [one.cached for one in found] == [0, 0, 0, 0]
    assert "--prefix-cache" in notes[0]


def test_paced_requests_come_at_the_rate():
    """Poisson, seeded; turns that follow another still do."""
    asked = [Asked(1, 1, 99.0)] * 4000 + [Asked(1, 1, None, 0, 0, 3.0)]
    found = paced(asked, 20.0, 1)
    assert found == paced(asked, 20.0, 1)
    assert found != paced(asked, 20.0, 2)
    assert found[0].at_s == 0.0
    assert found[3999].at_s == pytest.approx(200, rel=0.05)
    assert found[4000] == asked[4000]
