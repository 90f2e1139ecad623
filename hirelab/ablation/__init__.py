"""The paper's ablations as data, and what a set of trained networks can say about them."""
