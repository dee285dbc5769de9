"""A broker as a door: what is measured goes out, commands come in, Home Assistant finds it by itself."""
