"""Pure drawing: arrays in, images out. Nothing here knows a network or a widget.

- `theme`: the colours, type sizes and matplotlib settings of every image in the project;
- `canvas`: a sheet to draw on, with Pillow, fast enough to follow a slider;
- `grids`: token grids, regions as bands, padding, reach;
- `maps`: heat maps and gate weights;
- `animation`: the rearrangement as frames and as GIF;
- `charts`: curves and bars, with matplotlib.
"""
