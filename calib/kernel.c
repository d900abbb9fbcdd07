//go:build cgo

#include "kernel.h"

#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#define ABS 0x7fffffffu
#define INLINE static inline __attribute__((always_inline))

// A block goes two ways: first the indices and the extremes of its values, which compilers turn into vector code, then, if no value is
// beyond the limit, the counting, one store a value. The indices wait in the first-level cache.

INLINE uint32_t bits(float x) {
	uint32_t b;
	memcpy(&b, &x, sizeof b);
	return b;
}

INLINE float number(uint32_t b) {
	float x;
	memcpy(&x, &b, sizeof x);
	return x;
}

INLINE float magnitude(float x) { return number(bits(x) & ABS); }

// least is the smaller of two magnitudes, which order as their bits do, a NaN's above all. Compilers make branches or masks of floats'
// comparisons, and one instruction of this.
INLINE float least(float a, float b) { return number(bits(a) < bits(b) ? bits(a) : bits(b)); }

// gate is HardSigmoid of a number, each step rounded by itself. It takes standard C (kernel_cgo.go's -std), and two statements, to keep
// compilers from joining the multiplication and the addition, which would round once.
INLINE float gate(float x, float alpha, float beta) {
	float t = alpha * x;
	t = t + beta;
	int32_t b = (int32_t)bits(t); // negative where t is
	return least(number((uint32_t)(b < 0 ? 0 : b)), 1);
}

// sight widens most by the magnitudes of n values, and of what a gated placement makes of them.
INLINE struct qg_extremes sight(const float *restrict x, size_t n, struct qg_extremes most, const struct qg_placement *restrict gated) {
	int32_t positive = 0;  // the largest as a signed number is the largest positive value
	uint32_t negative = 0; // the largest as an unsigned number is the most negative value, where there is one
	for (size_t i = 0; i < n; i++) {
		uint32_t b = bits(x[i]);
		positive = positive > (int32_t)b ? positive : (int32_t)b;
		negative = negative > b ? negative : b;
	}
	if (gated) {
		float alpha = gated->alpha, beta = gated->beta;
		uint32_t open = 0, product = 0;
		for (size_t i = 0; i < n; i++) {
			float s = gate(x[i], alpha, beta);
			uint32_t o = bits(s) & ABS, p = bits(x[i] * s) & ABS;
			open = open > o ? open : o;
			product = product > p ? product : p;
		}
		if (open > most.gate)
			most.gate = open;
		if (product > most.product)
			most.product = product;
	}
	negative = negative > ABS ? negative & ABS : 0;
	if ((uint32_t)positive > most.positive)
		most.positive = (uint32_t)positive;
	if (negative > most.negative)
		most.negative = negative;
	return most;
}

INLINE int within(struct qg_extremes seen, struct qg_extremes limit) {
	return seen.positive <= limit.positive && seen.negative <= limit.negative && seen.gate <= limit.gate && seen.product <= limit.product;
}

// bin is the index of a magnitude that its grid holds.
INLINE uint32_t bin(float a, float scale) { return (uint32_t)(int32_t)(a * scale); }

// cells gives the place of each value in a joint histogram that holds them all.
INLINE void cells(const float *restrict x, size_t n, const struct qg_placement *restrict p, int nviews, uint32_t *restrict at) {
	struct qg_view view[QG_MOST_VIEWS];
	for (int v = 0; v < QG_MOST_VIEWS; v++)
		view[v] = p->views[v];
	uint32_t below = p->below;
	if (nviews == 0) {
		float alpha = p->alpha, beta = p->beta;
		uint32_t turn = p->turn, shift = p->shift, mask = (1u << shift) - 1;
		for (size_t i = 0; i < n; i++) {
			float s = gate(x[i], alpha, beta);
			uint32_t open = bin(s, view[1].scale), product = bin(magnitude(x[i] * s), view[2].scale);
			uint32_t sum = bin(magnitude(x[i]), view[0].scale) + (bits(x[i]) > ABS ? turn - open : open);
			at[i] = (sum << shift) + (product & mask) + (bits(x[i]) > ABS ? below : 0);
		}
		return;
	}
	for (size_t i = 0; i < n; i++) {
		uint32_t b = bits(x[i]), sum = 0, zero = (uint32_t)i % QG_ZEROS;
		float a = magnitude(x[i]);
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
INLINE size_t count(const float *x, size_t n, const struct qg_placement *p, int nviews, struct qg_extremes limit, uint32_t *counts,
	struct qg_extremes *most) {
	enum { GROUP = 16 };
	_Alignas(64) uint32_t places[2][QG_BLOCK]; // a vector that lies across two cache lines is slow to read in parts
	size_t done = 0, waiting = 0;              // values counted; values behind them whose places are known
	for (int turn = 0;; turn ^= 1) {
		uint32_t *now = places[turn], *next = places[turn ^ 1];
		const float *ahead_of = x + done + waiting;
		size_t left = n - done - waiting, m = left < QG_BLOCK ? left : QG_BLOCK;
		if (m > 0) {
			struct qg_extremes seen = sight(ahead_of, m, *most, nviews == 0 ? p : NULL);
			if (within(seen, limit))
				*most = seen;
			else
				m = 0;
		}
		ahead(ahead_of, left);
		if (m == QG_BLOCK && waiting == QG_BLOCK) {
			for (size_t i = 0; i < QG_BLOCK; i += GROUP) {
				cells(ahead_of + i, GROUP, p, nviews, next + i);
				add(now + i, GROUP, counts);
			}
		} else {
			cells(ahead_of, m, p, nviews, next);
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
		struct qg_extremes now = sight(x + done, m, *most, NULL);
		if (!within(now, limit))
			break;
		*most = now;
		done += m;
	}
	return done;
}

INLINE void gates(const float *restrict x, size_t n, float alpha, float beta, int product, float *restrict out) {
	for (size_t i = 0; i < n; i++) {
		float s = gate(x[i], alpha, beta);
		out[i] = x[i] == x[i] ? s : x[i];
	}
	if (product)
		for (size_t i = 0; i < n; i++)
			out[i] = x[i] * out[i];
}

// Each of them is compiled for a set of instructions, and for every number of views by itself, so that the loops over views dissolve.
#define COMPILE(suffix, attribute)                                                                                                 \
	attribute static size_t count_##suffix(const float *x, size_t n, const struct qg_placement *p, int nviews,                 \
		struct qg_extremes limit, uint32_t *counts, struct qg_extremes *most) {                                            \
		switch (nviews) {                                                                                                  \
		case 0:                                                                                                            \
			return count(x, n, p, 0, limit, counts, most);                                                             \
		case 1:                                                                                                            \
			return count(x, n, p, 1, limit, counts, most);                                                             \
		case 2:                                                                                                            \
			return count(x, n, p, 2, limit, counts, most);                                                             \
		default:                                                                                                           \
			return count(x, n, p, 3, limit, counts, most);                                                             \
		}                                                                                                                  \
	}                                                                                                                          \
	attribute static size_t extreme_##suffix(const float *x, size_t n, struct qg_extremes limit, struct qg_extremes *most) {   \
		return extreme(x, n, limit, most);                                                                                 \
	}                                                                                                                          \
	attribute static void gates_##suffix(const float *x, size_t n, float alpha, float beta, int product, float *out) {         \
		gates(x, n, alpha, beta, product, out);                                                                            \
	}

COMPILE(base, )

#ifdef __x86_64__
COMPILE(avx2, __attribute__((target("avx2"))))

// What compilers make of the loops above for AVX-512 takes a fifth longer than this: a pass of its own for the extremes, and masks where a
// minimum does.

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))

enum { LANES = 16 };

// The lanes of a placement's numbers.
struct lanes {
	__m512 scale[QG_MOST_VIEWS], low[QG_MOST_VIEWS], high[QG_MOST_VIEWS], alpha, beta;
	__m512i below, turn, mask;
	__m128i shift;
};

// The largest of each lane, as sight finds them; negative ones keep their sign.
struct seen {
	__m512i positive, negative, gate, product;
};

AVX512 INLINE __m512 magnitudes(__m512i v) { return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(ABS))); }

AVX512 INLINE __m512i bins(__m512 a, __m512 scale) { return _mm512_cvttps_epi32(_mm512_mul_ps(a, scale)); }

// place is sight and cells of as many values as there are lanes.
AVX512 INLINE void place(const float *x, const struct lanes *l, int nviews, struct seen *s, uint32_t *at) {
	__m512i v = _mm512_loadu_si512(x), sum = _mm512_setzero_si512();
	__m512 a = magnitudes(v);
	__mmask16 negative = _mm512_cmplt_epi32_mask(v, _mm512_setzero_si512());
	s->positive = _mm512_max_epi32(s->positive, v);
	s->negative = _mm512_max_epu32(s->negative, v);
	if (nviews == 0) {
		__m512 f = _mm512_castsi512_ps(v), t = _mm512_mul_ps(l->alpha, f);
		t = _mm512_add_ps(t, l->beta);
		t = _mm512_min_ps(_mm512_max_ps(t, _mm512_setzero_ps()), _mm512_set1_ps(1));
		__m512 product = magnitudes(_mm512_castps_si512(_mm512_mul_ps(f, t)));
		s->gate = _mm512_max_epi32(s->gate, _mm512_castps_si512(t));
		s->product = _mm512_max_epi32(s->product, _mm512_castps_si512(product));
		__m512i open = bins(t, l->scale[1]);
		sum = _mm512_add_epi32(bins(a, l->scale[0]), _mm512_mask_sub_epi32(open, negative, l->turn, open));
		sum = _mm512_add_epi32(_mm512_sll_epi32(sum, l->shift), _mm512_and_si512(bins(product, l->scale[2]), l->mask));
	} else {
		for (int k = 0; k < nviews; k++) {
			__m512 bounded = _mm512_min_ps(a, _mm512_mask_blend_ps(negative, l->high[k], l->low[k]));
			sum = _mm512_add_epi32(sum, bins(bounded, l->scale[k]));
		}
		const __m512i zeros = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7);
		sum = _mm512_mask_add_epi32(zeros, _mm512_test_epi32_mask(sum, sum), sum, _mm512_set1_epi32(QG_ZEROS - 1));
	}
	_mm512_storeu_si512(at, _mm512_mask_add_epi32(sum, negative, sum, l->below));
}

AVX512 INLINE int beyond(struct seen s, struct qg_extremes limit, int nviews) {
	__mmask16 far = _mm512_cmpgt_epi32_mask(s.positive, _mm512_set1_epi32((int)limit.positive)) |
		_mm512_cmpgt_epu32_mask(s.negative, _mm512_set1_epi32((int)(limit.negative | ~ABS)));
	if (nviews == 0)
		far |= _mm512_cmpgt_epi32_mask(s.gate, _mm512_set1_epi32((int)limit.gate)) |
			_mm512_cmpgt_epi32_mask(s.product, _mm512_set1_epi32((int)limit.product));
	return far != 0;
}

// count512 is count.
AVX512 INLINE size_t count512(const float *x, size_t n, const struct qg_placement *p, int nviews, struct qg_extremes limit, uint32_t *counts,
	struct qg_extremes *most) {
	struct lanes l = {.alpha = _mm512_set1_ps(p->alpha), .beta = _mm512_set1_ps(p->beta), .below = _mm512_set1_epi32((int)p->below),
		.turn = _mm512_set1_epi32((int)p->turn), .mask = _mm512_set1_epi32((1 << p->shift) - 1), .shift = _mm_cvtsi32_si128((int)p->shift)};
	for (int k = 0; k < QG_MOST_VIEWS; k++) {
		l.scale[k] = _mm512_set1_ps(p->views[k].scale);
		l.low[k] = _mm512_set1_ps(-p->views[k].low);
		l.high[k] = _mm512_set1_ps(p->views[k].high);
	}
	__m512i none = _mm512_setzero_si512();
	struct seen all = {none, none, none, none};
	_Alignas(64) uint32_t places[2][QG_BLOCK];
	float last[QG_BLOCK];
	size_t done = 0, waiting = 0;
	for (int turn = 0;; turn ^= 1) {
		uint32_t *now = places[turn], *next = places[turn ^ 1];
		const float *block = x + done + waiting;
		size_t left = n - done - waiting, m = left < QG_BLOCK ? left : QG_BLOCK;
		ahead(block, left);
		if (m > 0 && m < QG_BLOCK) { // filled up with the last value, which changes no extreme
			for (size_t i = 0; i < QG_BLOCK; i++)
				last[i] = block[i < m ? i : m - 1];
			block = last;
		}
		struct seen s = all;
		if (m > 0 && waiting == QG_BLOCK) {
			for (size_t i = 0; i < QG_BLOCK; i += LANES) {
				place(block + i, &l, nviews, &s, next + i);
				add(now + i, LANES, counts);
			}
		} else {
			for (size_t i = 0; i < m; i += LANES)
				place(block + i, &l, nviews, &s, next + i);
			add(now, waiting, counts);
		}
		if (beyond(s, limit, nviews))
			m = 0;
		else
			all = s;
		done += waiting;
		waiting = m;
		if (m == 0)
			break;
	}
	uint32_t negative = _mm512_reduce_max_epu32(all.negative);
	struct qg_extremes e = {(uint32_t)_mm512_reduce_max_epi32(all.positive), negative > ABS ? negative & ABS : 0,
		(uint32_t)_mm512_reduce_max_epi32(all.gate), (uint32_t)_mm512_reduce_max_epi32(all.product)};
	most->positive = most->positive > e.positive ? most->positive : e.positive;
	most->negative = most->negative > e.negative ? most->negative : e.negative;
	most->gate = most->gate > e.gate ? most->gate : e.gate;
	most->product = most->product > e.product ? most->product : e.product;
	return done;
}

#define count count512
COMPILE(avx512, AVX512)
#undef count

int qg_best(void) {
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
		return QG_AVX512;
	return __builtin_cpu_supports("avx2") ? QG_AVX2 : QG_BASE;
}
#else
int qg_best(void) { return QG_BASE; }
#endif

size_t qg_count(int level, const float *x, size_t n, const struct qg_placement *p, int nviews, struct qg_extremes limit, uint32_t *counts,
	struct qg_extremes *most) {
#ifdef __x86_64__
	if (level == QG_AVX512)
		return count_avx512(x, n, p, nviews, limit, counts, most);
	if (level == QG_AVX2)
		return count_avx2(x, n, p, nviews, limit, counts, most);
#endif
	(void)level;
	return count_base(x, n, p, nviews, limit, counts, most);
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

void qg_gate(int level, const float *x, size_t n, float alpha, float beta, int product, float *out) {
#ifdef __x86_64__
	if (level == QG_AVX512) {
		gates_avx512(x, n, alpha, beta, product, out);
		return;
	}
	if (level == QG_AVX2) {
		gates_avx2(x, n, alpha, beta, product, out);
		return;
	}
#endif
	(void)level;
	gates_base(x, n, alpha, beta, product, out);
}
