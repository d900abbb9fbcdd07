#!/usr/bin/env python3
"""Measures what GPUs can be fed with, beside quantgate: GB/s (1e9 bytes) of copies from pinned memory to one GPU and to all at once, alone and
while threads read batch files from the page cache into pinned memory of their own, as `quantgate evaluate --format batches` does.

    scripts/gpu/copies.py FOLDER [THREADS]     a folder of batch files, and how many threads read them (12)

Prints a line a case. Needs torch with CUDA.
"""

import ctypes
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import torch

BATCH = 100 * 3 * 224 * 224 * 4  # bytes of 100 images of float32
STREAMS = 2  # while one batch is copied, the next waits
SECONDS = 2.0


def pinned(size):
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def copier(gpu):
    """Returns what copies batches to a GPU until it is stopped, and returns the bytes and the seconds."""
    with torch.cuda.device(gpu):
        hosts = [pinned(BATCH) for _ in range(STREAMS)]
        devices = [torch.empty(BATCH, dtype=torch.uint8, device="cuda") for _ in range(STREAMS)]
        streams = [torch.cuda.Stream() for _ in range(STREAMS)]
        copied = [torch.cuda.Event(blocking=True) for _ in range(STREAMS)]
        torch.cuda.synchronize()

    def run(stop):
        with torch.cuda.device(gpu):
            began, n = time.perf_counter(), 0
            while not stop.is_set():
                i = n % STREAMS
                if n >= STREAMS:
                    copied[i].synchronize()
                with torch.cuda.stream(streams[i]):
                    devices[i].copy_(hosts[i], non_blocking=True)
                    copied[i].record()
                n += 1
            torch.cuda.synchronize()
            return n * BATCH, time.perf_counter() - began

    return run


def read_into(memory, path):
    """Reads a file and returns its size. Other threads run while the system copies."""
    fd = os.open(path, os.O_RDONLY)
    try:
        at = 0
        while n := os.preadv(fd, [memory[at:]], at):
            at += n
        return at
    finally:
        os.close(fd)


def reader(files, first):
    """Returns what reads one file after another until it is stopped, and returns the bytes and the seconds."""
    size = max(os.path.getsize(f) for f in files)
    host = pinned(size)

    def run(stop):
        memory = memoryview((ctypes.c_ubyte * size).from_address(host.data_ptr()))
        began, n, total = time.perf_counter(), first, 0
        while not stop.is_set():
            total += read_into(memory, files[n % len(files)])
            n += 1
        return total, time.perf_counter() - began

    return run


def measure(name, copiers, readers):
    stop = threading.Event()
    with ThreadPoolExecutor(len(copiers) + len(readers)) as pool:
        copying, reading = ([pool.submit(w, stop) for w in workers] for workers in (copiers, readers))
        time.sleep(SECONDS)
        stop.set()
    copies, reads = (sum(size / took / 1e9 for size, took in (f.result() for f in futures)) for futures in (copying, reading))
    each = copies / max(1, len(copiers))
    print(f"{name}: {len(copiers)} GPUs, copies {each:.1f} GB/s a GPU, {copies:.1f} in all, reads {reads:.1f}", flush=True)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    folder, threads = sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 12
    files = sorted(e.path for e in os.scandir(folder) if e.is_file())
    if not files or threads < 1:
        sys.exit(f"copies: {folder}: no file to read, or {threads} threads")
    copiers = [copier(gpu) for gpu in range(torch.cuda.device_count())]
    if not copiers:
        sys.exit("copies: torch finds no GPU")
    readers = [reader(files, i) for i in range(threads)]
    scratch = bytearray(max(os.path.getsize(f) for f in files))
    for f in files:  # into the page cache
        read_into(memoryview(scratch), f)
    some = [copiers[:1], copiers][: len(copiers)]  # one GPU, and all where that is more
    for gpus in some:
        measure("copies alone", gpus, [])
    measure(f"{threads} threads read alone", [], readers)
    for gpus in some:
        measure(f"copies while {threads} threads read", gpus, readers)


if __name__ == "__main__":
    main()
