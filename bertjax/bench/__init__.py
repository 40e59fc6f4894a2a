"""How fast, how large, how near the machine's ceiling; and beside others."""
