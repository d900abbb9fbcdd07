// A driver with FAKE_DEVICES GPUs (1), whose memory is the host's. It keeps count of what was not given back, checks that memory is used in
// the context it was allocated in and that copies come from and go to pinned memory, and fails where FAKE_CUDA says. FAKE_LOST=1:20 makes
// device 1 fail from its 20th wait on; FAKE_OTHER=1 gives device 1 another name; FAKE_PINNED=17 is the most pieces of memory that can be pinned
// at once.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 8
static int live, contexts[MOST], waits[MOST];
static __thread void *current;

int fake_live_allocations(void) { return live; }

static int mode(const char *what) {
	const char *m = getenv("FAKE_CUDA");
	return m && !strcmp(m, what);
}
static int devices(void) {
	const char *n = getenv("FAKE_DEVICES");
	return n ? atoi(n) : 1;
}
#define ID(d) if (d < 5 || d >= 5 + devices()) return 101 // what cuDeviceGet gives is no index

int cuInit(unsigned flags) { return flags ? 1 : mode("no_device") ? 100 : 0; }
int cuDriverGetVersion(int *v) { return *v = 12040, 0; }
int cuDeviceGetCount(int *n) { return *n = devices(), 0; }
int cuDeviceGet(int *d, int i) { return i >= devices() ? 101 : (*d = 5 + i, 0); }
int cuDeviceGetName(char *s, int n, int d) {
	const char *other = getenv("FAKE_OTHER");
	ID(d);
	return snprintf(s, n, other && atoi(other) == d - 5 ? "Other GPU" : "Fake GPU"), 0;
}
int cuDeviceGetPCIBusId(char *s, int n, int d) {
	ID(d);
	return snprintf(s, n, "0000:%02d:00.0", d - 5), 0;
}
int cuDeviceTotalMem_v2(size_t *n, int d) {
	ID(d);
	return *n = (size_t)8 << 30, 0;
}
int cuDeviceGetAttribute(int *v, int a, int d) {
	ID(d);
	return *v = a == 75 ? 9 : a == 16 ? 132 : 0, 0;
}
int cuDevicePrimaryCtxRetain(void **c, int d) {
	ID(d);
	return *c = &contexts[d - 5], 0;
}
int cuCtxSetCurrent(void *c) { return current = c, 0; }
#define BOUND if ((int *)current < contexts || (int *)current >= contexts + MOST) return 201
#define OWNED(p) if (*(void **)((char *)(p) - 16) != current) return 400

static int get(void **p, size_t n) {
	char *b = malloc(n + 16);
	*(void **)b = current;
	*p = b + 16;
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
	OWNED(p);
	free((char *)p - 16);
	__sync_fetch_and_sub(&live, 1);
	return 0;
}
// Pinned memory, which every device copies from and to: flag 1.
static struct { char *at; size_t n; } pinned[256];
static int pieces;
static pthread_mutex_t pinning = PTHREAD_MUTEX_INITIALIZER;

static int change(char *at, size_t n, char *to, size_t to_n) {
	int found = 0;
	pthread_mutex_lock(&pinning);
	for (int i = 0; i < 256 && !found; i++) {
		if (at ? pinned[i].at && pinned[i].at <= at && at + n <= pinned[i].at + pinned[i].n : !pinned[i].at) {
			found = 1;
			if (to != at) pinned[i].at = to, pinned[i].n = to_n, pieces += to ? 1 : -1;
		}
	}
	pthread_mutex_unlock(&pinning);
	return found;
}
#define PINNED(p, n) if (!change((char *)(p), n, (char *)(p), n)) return 1

int cuMemHostAlloc(void **p, size_t n, unsigned flags) {
	BOUND;
	const char *most = getenv("FAKE_PINNED");
	if (flags != 1 || mode("no_pinned") || most && *most && pieces >= atoi(most)) return 2;
	int r = get(p, n);
	return r ? r : change(0, 0, *p, n) ? 0 : 2;
}
int cuMemFreeHost(void *p) {
	PINNED(p, 0);
	change(p, 0, 0, 0);
	return cuMemFree_v2((uint64_t)p);
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, void *s) {
	BOUND;
	OWNED(to);
	PINNED(from, n);
	if (mode("no_upload")) return 0; // as a real device: the processor has no part in it
	return s ? memcpy((void *)to, from, n), 0 : 1;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, void *s) {
	BOUND;
	OWNED(from);
	PINNED(to, n);
	return s ? memcpy(to, (void *)from, n), 0 : 1;
}
int cuStreamCreate(void **s, unsigned flags) {
	BOUND;
	return flags != 1 ? 1 : get(s, 1);
}
int cuStreamDestroy_v2(void *s) { return cuMemFree_v2((uint64_t)s); }
int cuStreamSynchronize(void *s) {
	int device, from;
	const char *lost = getenv("FAKE_LOST");
	BOUND;
	if (!s) return 1;
	OWNED(s);
	int i = (int *)current - contexts;
	int n = __sync_add_and_fetch(&waits[i], 1);
	if (lost && sscanf(lost, "%d:%d", &device, &from) == 2 && device == i && n >= from) return 214;
	return mode("wait_fails") ? 700 : 0;
}
// An event holds the number of milliseconds at which it was recorded, on a clock that goes on by one with every record.
int cuEventCreate(void **e, unsigned flags) {
	BOUND;
	if (flags) return 1;
	int r = get(e, sizeof(float));
	*(float *)*e = -1;
	return r;
}
int cuEventDestroy_v2(void *e) { return cuMemFree_v2((uint64_t)e); }
int cuEventRecord(void *e, void *s) {
	static int clock;
	BOUND;
	if (!e || !s) return 1;
	OWNED(e);
	return *(float *)e = __sync_add_and_fetch(&clock, 1), 0;
}
int cuEventElapsedTime(float *ms, void *from, void *to) {
	BOUND;
	OWNED(from);
	OWNED(to);
	float a = *(float *)from, b = *(float *)to;
	return a < 0 || b < a ? 400 : (*ms = b - a, 0);
}
int cuMemGetInfo_v2(size_t *f, size_t *t) {
	BOUND;
	return *f = (size_t)7 << 30, *t = (size_t)8 << 30, 0;
}
int cuGetErrorString(int r, const char **s) {
	*s = r == 2 ? "out of memory" : r == 100 ? "no CUDA-capable device is detected" : r == 101 ? "invalid device ordinal" : r == 214 ? "uncorrectable ECC error encountered" : r == 700 ? "an illegal memory access was encountered" : "some error";
	return 0;
}
