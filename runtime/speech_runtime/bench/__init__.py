"""`speech-bench`: what a bundle costs on this machine. Needs nothing but the runtime."""
