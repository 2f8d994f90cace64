"""Features → pixels: distances between features, t-SNE and other layouts, the smallest rectangle."""
