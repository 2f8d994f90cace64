"""What a run tells its reader: report, page, pictures, and which words moved a decision."""
