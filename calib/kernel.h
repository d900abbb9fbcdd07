// The loops that see every activation. kernel.go says what they compute.

#ifndef QUANTGATE_CALIB_KERNEL_H
#define QUANTGATE_CALIB_KERNEL_H

#include <stddef.h>
#include <stdint.h>

// Equal to the constants of the same names in kernel.go.
enum { QG_BINS = 2048, QG_MOST_VIEWS = 3, QG_BLOCK = 128, QG_ZEROS = 8 };

// The same memory as kernel.go's viewParams.
struct qg_view {
	float scale, low, high;
};

// The same memory as kernel.go's placement.
struct qg_placement {
	struct qg_view views[QG_MOST_VIEWS];
	uint32_t below;
	float alpha, beta;
	uint32_t turn, shift;
};

// The same memory as kernel.go's extremes.
struct qg_extremes {
	uint32_t positive, negative, gate, product;
};

// The instruction sets that the loops are compiled for.
enum { QG_BASE, QG_AVX2, QG_AVX512 };

// The best of them that this machine has.
int qg_best(void);

// nviews 0 is a gated placement's.
size_t qg_count(int level, const float *x, size_t n, const struct qg_placement *p, int nviews, struct qg_extremes limit, uint32_t *counts,
	struct qg_extremes *most);

size_t qg_extreme(int level, const float *x, size_t n, struct qg_extremes limit, struct qg_extremes *most);

// The gates of n values, or their products with them.
void qg_gate(int level, const float *x, size_t n, float alpha, float beta, int product, float *out);

#endif
