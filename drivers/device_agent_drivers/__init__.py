"""The bundled drivers, one file each, loaded through entry points like anybody's."""
