"""A disk that hangs: calls of a process that write to one folder do not come back while a file is there."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static void wait_for_the_disk(int file) {
    const char *folder = getenv("HANGING_DISK"), *not_in = getenv("HANGING_DISK_NOT");
    const char *sign = getenv("HANGING_DISK_SIGN");
    char link[64], path[4096];
    if (!folder || !not_in || !sign) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return;
    path[size] = 0;
    if (strncmp(path, folder, strlen(folder)) || !strncmp(path, not_in, strlen(not_in))) return;
    while (!access(sign, F_OK)) usleep(5000);
}
#define HANGING(type, name, parameters, ...) \
    type name parameters { \
        wait_for_the_disk(file); \
        return ((type(*) parameters) dlsym(RTLD_NEXT, #name))(__VA_ARGS__); \
    }
HANGING(int, fsync, (int file), file)
HANGING(int, fdatasync, (int file), file)
HANGING(ssize_t, write, (int file, const void *data, size_t size), file, data, size)
HANGING(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), file, data, size, at)
HANGING(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), file, data, size, at)
HANGING(int, ftruncate, (int file, off_t size), file, size)
HANGING(int, ftruncate64, (int file, off64_t size), file, size)
"""


class HangingDisk:
    """For a process with `environment`: `with disk.hangs():` nothing is written below `folder`, besides in
    `not_in`."""

    def __init__(self, folder: Path, not_in: Path, workshop: Path) -> None:
        if shutil.which("cc") is None:
            pytest.skip("cc is not installed (apt-get install gcc libc6-dev)")
        source, library = workshop / "hanging_disk.c", workshop / "hanging_disk.so"
        source.write_text(SOURCE)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        self._sign = workshop / "disk-hangs"
        self.environment = {
            "LD_PRELOAD": str(library),
            "HANGING_DISK": str(folder),
            "HANGING_DISK_NOT": str(not_in),
            "HANGING_DISK_SIGN": str(self._sign),
        }

    @contextmanager
    def hangs(self) -> Iterator[None]:
        self._sign.touch()
        try:
            yield
        finally:
            self._sign.unlink()
