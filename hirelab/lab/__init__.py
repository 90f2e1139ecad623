"""The project as a place: notebooks, gallery, exercises, benchmarks, JupyterLab."""
