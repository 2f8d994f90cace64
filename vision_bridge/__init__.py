"""Text features as images for frozen ImageNet networks."""
