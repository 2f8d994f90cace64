"""The first layers of ImageNet networks, with frozen weights: images → maps, and how maps are kept."""
