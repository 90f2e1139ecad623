"""Images: photographs that need no download, the reader's own files, labelled sets to train on.

images      opens one image, whatever it comes as
transforms  from images to a network's input, and back
samples     many images, ready for a network
corruptions noise, blur and other damage, to ask what is still recognised
crops       a small labelled set, cut here from photographs
scenes      a small set with boxes and labelled pixels, generated here
subsets     labelled images: data sets by name, folders of class folders, zips
boxes       images with boxes and masks, in COCO's form
label_maps  images with a class for every pixel, in the layouts that are in use
download    brings a data set from its publisher
check       reads a whole data set and says what is wrong with it
cache       labelled images decoded once, for training
"""

from .corruptions import CORRUPTIONS, corrupt
from .images import MAX_PIXELS, PHOTOGRAPHS, open_image, suffixes
from .samples import iter_images, samples
from .transforms import IMAGENET_MEAN, IMAGENET_STD, normalise, pixels, square

__all__ = [
    "CORRUPTIONS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MAX_PIXELS",
    "PHOTOGRAPHS",
    "corrupt",
    "iter_images",
    "normalise",
    "open_image",
    "pixels",
    "samples",
    "square",
    "suffixes",
]
