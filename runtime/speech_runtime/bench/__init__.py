"""`speech-bench`: measures times, memory and size of a bundle on this machine. It needs only the runtime."""
