"""Long trials of whole runs: killed again and again, or watched for a long time."""
