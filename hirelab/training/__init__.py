"""Training and what comes of it: recipes, the loop, run folders, evaluation, released weights."""
