"""Detection, instance and semantic segmentation on any backbone of timm's, ours among them."""
