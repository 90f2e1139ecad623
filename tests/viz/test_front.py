"""The front of accuracy against speed: who is on it, and that a chart shows all names."""

from __future__ import annotations

from hirelab.viz.front import Panel, front_of, speed_fronts


def test_the_front_is_what_no_other_beats():
    speed = {"slow": 1.0, "middle": 2.0, "beaten": 1.5, "fast": 4.0, "as fast": 4.0}
    accuracy = {"slow": 83.0, "middle": 82.0, "beaten": 81.0, "fast": 79.0, "as fast": 78.0}
    assert front_of(speed, accuracy) == ["fast", "middle", "slow"]
    assert front_of({"a": 1.0, "b": 1.0}, {"a": 5.0, "b": 5.0}) == ["a", "b"]  # equals share it


def test_labels_stand_apart_and_inside():
    speed = {"a1": 30.0, "a2": 20.0, "b": 31.0, "c": 29.0}
    accuracy = {"a1": 80.0, "a2": 82.0, "b": 80.0, "c": 80.1}
    families = {"Ours": ["a1", "a2"], "Other": ["b"], "Third": ["c"]}
    panel = Panel("a title", "speed", "top-1, %", speed, accuracy, families, ["Ours"],
                  {"b": (79.0, 81.0)})  # fmt: skip
    drawn = speed_fronts([panel, panel], "two panels")
    assert drawn.text == "two panels"
    assert drawn.data.startswith(b"\x89PNG")
    for axes in drawn.figure.axes:
        texts = [text for text in axes.texts if text.get_text() in families]
        assert {text.get_text() for text in texts} == families.keys()
        assert len(texts) == len(families)
        boxes = [text.get_window_extent() for text in texts]
        assert not any(a.overlaps(b) for a in boxes for b in boxes if a is not b)
        frame = axes.get_window_extent()
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
        assert [t.get_fontweight() for t in texts if t.get_text() == "Ours"] == ["bold"]
