"""What nbval does not compare here, beside images, which it never compares.

`stderr`: a dependency's deprecation warning should not fail a notebook. `image/svg+xml`: matplotlib
writes dates and random ids into it. Printed text and HTML are compared: they are ours, and the same
on every run.
"""


def pytest_collectstart(collector):
    """Extend nbval's list on each notebook it collects."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare = (*collector.skip_compare, "stderr", "image/svg+xml")
