"""What a notebook shows of a report."""

from kloaders.core.notebooks import sentence_and_table


def test_a_sentence_and_a_table():
    """Whatever names hold is text; a long table ends with how much more there is."""
    found = sentence_and_table("2 <bad>", ["file", "what"], [("a&b.png", 3), ("c", "\x1b")])
    assert "<p>2 &lt;bad&gt;</p>" in found
    assert ">a&amp;b.png</td>" in found
    assert "\x1b" not in found
    assert found.count("<tr>") == 3
    assert "<table>" not in sentence_and_table("nothing", ["a"], [])
    long = sentence_and_table("many", ["n"], [(k,) for k in range(70)], more=5)
    assert (long.count("<td"), "and 25 more" in long) == (50, True)
