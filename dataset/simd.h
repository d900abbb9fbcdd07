// The two passes of a resize, and the normalisation, in AVX2. The passes give the bytes of their twins in resize.go: sums are exact,
// modulo 2^32 in both.
#include <stddef.h>
#include <stdint.h>

// qg_simd is 1 where the others may be called: on x86-64 with AVX2 and FMA.
int qg_simd(void);

// QG_ROWS is the number of rows that qg_rgb_rows takes at a time.
enum { QG_ROWS = 4 };

// qg_rgb_rows resizes rows of RGB along the row; rows is a multiple of QG_ROWS. Output o of a row is made of groups[o] groups of
// four pixels from pixel from[o] - min on. Their coefficients start at split[8 * width * o]: of each group the four high parts,
// then the four low ones. It reads up to 4 bytes behind a row's last group.
void qg_rgb_rows(const uint8_t *src, size_t src_stride, uint8_t *dst, size_t dst_stride, size_t rows, size_t outs,
	const int32_t *from, int32_t min, const int32_t *groups, const int16_t *split, size_t width);

// qg_columns resizes columns: row o of dst is the sum of n[o] rows of src from row from[o] - min on, times the coefficients that
// start at coef[width * o]. A row has count bytes, at least QG_SHORTEST.
enum { QG_SHORTEST = 16 };
void qg_columns(const uint8_t *src, size_t src_stride, uint8_t *dst, size_t dst_stride, size_t count, size_t outs,
	const int32_t *from, int32_t min, const int32_t *n, const int32_t *coef, size_t width);

// qg_planes turns rows of RGB, each of width pixels, at least QG_NARROWEST, into rows of red, of green and of blue that begin stride
// floats apart: (v / 255 - mean) / std. norm holds mean, std and 1 / std of each colour. It divides by multiplying and correcting the
// product, which need not round as division does for every std: who calls it compares all 256 bytes first.
enum { QG_NARROWEST = 8 };
void qg_planes(const uint8_t *src, size_t src_stride, float *red, float *green, float *blue, size_t stride, size_t rows, size_t width,
	const float *norm);
