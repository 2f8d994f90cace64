"""Features → pixels: scaling, distances between features, engines (t-SNE, IGTD, …), rectangle, rules of pixels."""
