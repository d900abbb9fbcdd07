// A driver with one GPU whose memory is the host's. It keeps count of what was not given back, and fails where FAKE_CUDA says.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int live;
static __thread void *current;

int fake_live_allocations(void) { return live; }

static int mode(const char *what) {
	const char *m = getenv("FAKE_CUDA");
	return m && !strcmp(m, what);
}

int cuInit(unsigned flags) { return flags ? 1 : mode("no_device") ? 100 : 0; }
int cuDriverGetVersion(int *v) { return *v = 12040, 0; }
int cuDeviceGetCount(int *n) { return *n = 1, 0; }
int cuDeviceGet(int *d, int i) { return i ? 101 : (*d = 5, 0); }
int cuDeviceGetName(char *s, int n, int d) { return d == 5 ? snprintf(s, n, "Fake GPU"), 0 : 101; }
int cuDeviceTotalMem_v2(size_t *n, int d) { return d == 5 ? (*n = (size_t)8 << 30, 0) : 101; }
int cuDeviceGetAttribute(int *v, int a, int d) { return d == 5 ? (*v = a == 75 ? 9 : 0, 0) : 101; }
int cuDevicePrimaryCtxRetain(void **c, int d) { return d == 5 ? (*c = &live, 0) : 101; }
int cuCtxSetCurrent(void *c) { return current = c, 0; }
#define BOUND if (current != &live) return 201

static int get(void **p, size_t n) {
	*p = malloc(n);
	__sync_fetch_and_add(&live, 1);
	return 0;
}
int cuMemAlloc_v2(uint64_t *p, size_t n) {
	BOUND;
	if (mode("out_of_memory")) return 2;
	return get((void **)p, n);
}
int cuMemFree_v2(uint64_t p) {
	BOUND;
	free((void *)p);
	__sync_fetch_and_sub(&live, 1);
	return 0;
}
int cuMemHostAlloc(void **p, size_t n, unsigned flags) {
	BOUND;
	if (flags || mode("no_pinned")) return 2;
	return get(p, n);
}
int cuMemFreeHost(void *p) { return cuMemFree_v2((uint64_t)p); }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, void *s) {
	BOUND;
	return s ? memcpy((void *)to, from, n), 0 : 1;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, void *s) {
	BOUND;
	return s ? memcpy(to, (void *)from, n), 0 : 1;
}
int cuStreamCreate(void **s, unsigned flags) {
	BOUND;
	return flags != 1 ? 1 : get(s, 1);
}
int cuStreamDestroy_v2(void *s) { return cuMemFree_v2((uint64_t)s); }
int cuStreamSynchronize(void *s) {
	BOUND;
	return !s ? 1 : mode("wait_fails") ? 700 : 0;
}
int cuMemGetInfo_v2(size_t *f, size_t *t) {
	BOUND;
	return *f = (size_t)7 << 30, *t = (size_t)8 << 30, 0;
}
int cuGetErrorString(int r, const char **s) {
	*s = r == 2 ? "out of memory" : r == 100 ? "no CUDA-capable device is detected" : r == 101 ? "invalid device ordinal" : r == 700 ? "an illegal memory access was encountered" : "some error";
	return 0;
}
