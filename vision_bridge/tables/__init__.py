"""What users bring as tables: files of rows → numeric features by split."""
