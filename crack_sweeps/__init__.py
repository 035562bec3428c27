"""Train, search and honestly compare crack-segmentation models."""
