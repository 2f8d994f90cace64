"""What users bring as texts: CSV, JSON, folders and published data sets → splits of labelled rows."""
