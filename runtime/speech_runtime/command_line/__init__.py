"""What the commands are made of: flags, formats, and where they write."""
