"""Pure drawing: arrays in, images out. Nothing here knows a network, a measurement or a widget.

- `theme`: the colours, type sizes and matplotlib settings of every image in the project;
- `canvas`: an area to draw on with Pillow, fast enough to follow a slider;
- `figures`: a finished image that shows itself, and the base of the matplotlib charts;
- `grids`: token grids, regions as bands, padding, reach along a line;
- `maps`: heat maps and gate weights;
- `reach`: which tokens of a map reach a token, and after which block;
- `overlay`: attributions over images;
- `field`: receptive fields and their curves of mass;
- `animation`: the rearrangement as frames and as GIF;
- `charts`, `bands`: curves, bars and mean curves with intervals, with matplotlib.
"""
