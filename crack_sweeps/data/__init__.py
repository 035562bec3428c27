"""Layouts, masks, splits, the built-in set; pixels to tensors."""
