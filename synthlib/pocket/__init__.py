"""The embedded text-to-image model: an ordinary diffusers checkpoint (`weights/`) and the program that made it."""
