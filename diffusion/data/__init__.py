"""What users bring as images: files, folders, archives and arrays → splits of uint8 images."""
