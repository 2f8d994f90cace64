"""What a run tells its reader: report, page, pictures, words that moved a decision, rows of doubtful label."""
