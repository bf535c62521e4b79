"""ID3 tags, which some writers put in front of MP3 and FLAC."""


def id3_bytes(head: bytes) -> int:
    """Size of the ID3v2 tag that begins with `head`, of 10 bytes or more; 0 where none does."""
    if not head.startswith(b"ID3") or len(head) < 10:
        return 0
    size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if head[5] & 0x10 else 0)
