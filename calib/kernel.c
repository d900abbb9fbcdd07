//go:build cgo

#include "kernel.h"

#include <string.h>

#define ABS 0x7fffffffu
#define INLINE static inline __attribute__((always_inline))

// A block goes two ways: first the indices and the extremes of its values, which compilers turn into vector code, then, if no value is
// beyond the limit, the counting, one store a value. The indices wait in the first-level cache.

// sight widens most by the magnitudes of n values.
INLINE struct qg_extremes sight(const float *restrict x, size_t n, struct qg_extremes most) {
	int32_t positive = 0;  // the largest as a signed number is the largest positive value
	uint32_t negative = 0; // the largest as an unsigned number is the most negative value, where there is one
	for (size_t i = 0; i < n; i++) {
		uint32_t b;
		memcpy(&b, x + i, sizeof b);
		positive = positive > (int32_t)b ? positive : (int32_t)b;
		negative = negative > b ? negative : b;
	}
	negative = negative > ABS ? negative & ABS : 0;
	if ((uint32_t)positive > most.positive)
		most.positive = (uint32_t)positive;
	if (negative > most.negative)
		most.negative = negative;
	return most;
}

// cells gives the place of each value in a joint histogram. The bounds keep every place inside it, a NaN's too.
INLINE void cells(const float *restrict x, size_t n, const struct qg_view *restrict views, int nviews, uint32_t below, uint32_t *restrict at) {
	struct qg_view view[QG_MOST_VIEWS];
	for (int v = 0; v < nviews; v++)
		view[v] = views[v];
	for (size_t i = 0; i < n; i++) {
		uint32_t b, magnitude, sum = 0, zero = (uint32_t)i % QG_ZEROS;
		memcpy(&b, x + i, sizeof b);
		magnitude = b & ABS;
		float a;
		memcpy(&a, &magnitude, sizeof a);
		for (int v = 0; v < nviews; v++) {
			float bound = b > ABS ? -view[v].low : view[v].high;
			float f = (a < bound ? a : bound) * view[v].scale;
			sum += (uint32_t)(int32_t)(f < QG_BINS ? f : QG_BINS);
		}
		at[i] = (sum > 0 ? sum + QG_ZEROS - 1 : zero) + (b > ABS ? below : 0);
	}
}

// ahead asks for the values some blocks on, which the counting would otherwise wait for.
INLINE void ahead(const float *x, size_t n) {
	enum { AHEAD = 4 * QG_BLOCK, LINE = 16 };
	if (n >= AHEAD + QG_BLOCK)
		for (size_t i = 0; i < QG_BLOCK; i += LINE)
			__builtin_prefetch(x + AHEAD + i);
}

INLINE void add(const uint32_t *restrict at, size_t n, uint32_t *restrict counts) {
	for (size_t i = 0; i < n; i++)
		counts[at[i]]++;
}

// While one block is counted, which takes loads and stores, the places of the next are computed, which takes arithmetic: side by side in
// groups, so that a core does both at once.
INLINE size_t count(const float *x, size_t n, const struct qg_view *views, int nviews, uint32_t below, struct qg_extremes limit,
	uint32_t *counts, struct qg_extremes *most) {
	enum { GROUP = 16 };
	uint32_t places[2][QG_BLOCK];
	size_t done = 0, waiting = 0; // values counted; values behind them whose places are known
	for (int turn = 0;; turn ^= 1) {
		uint32_t *now = places[turn], *next = places[turn ^ 1];
		const float *ahead_of = x + done + waiting;
		size_t left = n - done - waiting, m = left < QG_BLOCK ? left : QG_BLOCK;
		if (m > 0) {
			struct qg_extremes seen = sight(ahead_of, m, *most);
			if (seen.positive > limit.positive || seen.negative > limit.negative)
				m = 0;
			else
				*most = seen;
		}
		ahead(ahead_of, left);
		if (m == QG_BLOCK && waiting == QG_BLOCK) {
			for (size_t i = 0; i < QG_BLOCK; i += GROUP) {
				cells(ahead_of + i, GROUP, views, nviews, below, next + i);
				add(now + i, GROUP, counts);
			}
		} else {
			cells(ahead_of, m, views, nviews, below, next);
			add(now, waiting, counts);
		}
		done += waiting;
		waiting = m;
		if (m == 0)
			return done;
	}
}

INLINE size_t extreme(const float *x, size_t n, struct qg_extremes limit, struct qg_extremes *most) {
	size_t done = 0;
	while (done < n) {
		size_t m = n - done < QG_BLOCK ? n - done : QG_BLOCK;
		struct qg_extremes now = sight(x + done, m, *most);
		if (now.positive > limit.positive || now.negative > limit.negative)
			break;
		*most = now;
		done += m;
	}
	return done;
}

// Each of them is compiled for a set of instructions, and for every number of views by itself, so that the loops over views dissolve.
#define COMPILE(suffix, attribute)                                                                                                 \
	attribute static size_t count_##suffix(const float *x, size_t n, const struct qg_view *views, int nviews, uint32_t below,  \
		struct qg_extremes limit, uint32_t *counts, struct qg_extremes *most) {                                            \
		switch (nviews) {                                                                                                  \
		case 1:                                                                                                            \
			return count(x, n, views, 1, below, limit, counts, most);                                                  \
		case 2:                                                                                                            \
			return count(x, n, views, 2, below, limit, counts, most);                                                  \
		default:                                                                                                           \
			return count(x, n, views, 3, below, limit, counts, most);                                                  \
		}                                                                                                                  \
	}                                                                                                                          \
	attribute static size_t extreme_##suffix(const float *x, size_t n, struct qg_extremes limit, struct qg_extremes *most) {   \
		return extreme(x, n, limit, most);                                                                                 \
	}

COMPILE(base, )

#ifdef __x86_64__
COMPILE(avx2, __attribute__((target("avx2"))))
COMPILE(avx512, __attribute__((target("avx512f,avx512bw,avx512vl"))))

int qg_best(void) {
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
		return QG_AVX512;
	return __builtin_cpu_supports("avx2") ? QG_AVX2 : QG_BASE;
}
#else
int qg_best(void) { return QG_BASE; }
#endif

size_t qg_count(int level, const float *x, size_t n, const struct qg_view *views, int nviews, uint32_t below,
	struct qg_extremes limit, uint32_t *counts, struct qg_extremes *most) {
#ifdef __x86_64__
	if (level == QG_AVX512)
		return count_avx512(x, n, views, nviews, below, limit, counts, most);
	if (level == QG_AVX2)
		return count_avx2(x, n, views, nviews, below, limit, counts, most);
#endif
	(void)level;
	return count_base(x, n, views, nviews, below, limit, counts, most);
}

size_t qg_extreme(int level, const float *x, size_t n, struct qg_extremes limit, struct qg_extremes *most) {
#ifdef __x86_64__
	if (level == QG_AVX512)
		return extreme_avx512(x, n, limit, most);
	if (level == QG_AVX2)
		return extreme_avx2(x, n, limit, most);
#endif
	(void)level;
	return extreme_base(x, n, limit, most);
}
