"""Named data sets, and what users bring as images (files, folders, archives, arrays) → splits of uint8 images."""
