#include "simd.h"

// A coefficient of some 23 bits is split into high * 2^15 + low, because the multiplication that does two pixels at once
// (PMADDWD) takes 16 bits. A sum ends as resize.go's: (half + (high << 15) + low) >> 22, clipped to a byte.
enum { LOW_BITS = 15, LOW_MASK = (1 << LOW_BITS) - 1, HALF = 1 << 21, PRECISION = 22 };

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2,fma")))

int qg_simd(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

AVX2 static inline __m256i whole(__m256i high, __m256i low) { return _mm256_add_epi32(_mm256_slli_epi32(high, LOW_BITS), low); }

// colours ends the sums of one pixel: red, green, blue and nothing, each half of them in one half of sum.
AVX2 static inline __m128i colours(__m256i sum) {
	__m128i v = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
	return _mm_srai_epi32(_mm_add_epi32(v, _mm_set1_epi32(HALF)), PRECISION);
}

AVX2 void qg_rgb_rows(const uint8_t *src, size_t src_stride, uint8_t *dst, size_t dst_stride, size_t rows, size_t outs,
	const int32_t *from, int32_t min, const int32_t *groups, const int16_t *split, size_t width) {
	// Pixels 0 and 1 go to the lower half, 2 and 3 to the upper one: pairs of red, of green and of blue, 16 bits a value.
	const __m256i pairs = _mm256_setr_epi8(
		0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,
		6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
	const __m256i pick_high = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1), pick_low = _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3);
	for (size_t y = 0; y < rows; y += QG_ROWS) {
		for (size_t o = 0; o < outs; o++) {
			const uint8_t *in = src + y * src_stride + 3 * (size_t)(from[o] - min);
			const int16_t *coef = split + 8 * width * o;
			__m256i high0 = _mm256_setzero_si256(), high1 = high0, high2 = high0, high3 = high0;
			__m256i low0 = high0, low1 = high0, low2 = high0, low3 = high0;
			for (int32_t g = 0; g < groups[o]; g++, in += 12, coef += 8) {
				const __m256i both = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)coef));
				const __m256i h = _mm256_permutevar8x32_epi32(both, pick_high), l = _mm256_permutevar8x32_epi32(both, pick_low);
				__m256i v;
// Written out, since compilers leave the sums in memory where it is a loop.
#define ADD(k)                                                                                                       \
	v = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(in + k * src_stride)));                        \
	v = _mm256_shuffle_epi8(v, pairs);                                                                               \
	high##k = _mm256_add_epi32(high##k, _mm256_madd_epi16(v, h));                                                    \
	low##k = _mm256_add_epi32(low##k, _mm256_madd_epi16(v, l))
				ADD(0);
				ADD(1);
				ADD(2);
				ADD(3);
#undef ADD
			}
			const __m128i bytes = _mm_packus_epi16(
				_mm_packs_epi32(colours(whole(high0, low0)), colours(whole(high1, low1))),
				_mm_packs_epi32(colours(whole(high2, low2)), colours(whole(high3, low3))));
			const uint32_t pixel[QG_ROWS] = {(uint32_t)_mm_extract_epi32(bytes, 0), (uint32_t)_mm_extract_epi32(bytes, 1),
				(uint32_t)_mm_extract_epi32(bytes, 2), (uint32_t)_mm_extract_epi32(bytes, 3)};
			// The fourth byte is overwritten by the next pixel, and is not written where there is none.
			uint8_t *out = dst + y * dst_stride + 3 * o;
			if (o + 1 < outs) {
				memcpy(out, &pixel[0], 4);
				memcpy(out + dst_stride, &pixel[1], 4);
				memcpy(out + 2 * dst_stride, &pixel[2], 4);
				memcpy(out + 3 * dst_stride, &pixel[3], 4);
			} else {
				for (int k = 0; k < QG_ROWS; k++) memcpy(out + k * dst_stride, &pixel[k], 3);
			}
		}
	}
}

// column_bytes makes 16 bytes of a row out of n rows.
AVX2 static inline void column_bytes(const uint8_t *in, size_t stride, uint8_t *out, const int32_t *coef, int32_t n) {
	__m256i high0 = _mm256_setzero_si256(), high1 = high0, low0 = high0, low1 = high0;
	for (int32_t i = 0; i < n; i += 2, in += 2 * stride) {
		// Two rows at a time; an odd last one is paired with nothing.
		const int pair = i + 1 < n;
		const __m128i a = _mm_loadu_si128((const __m128i *)in);
		const __m128i b = pair ? _mm_loadu_si128((const __m128i *)(in + stride)) : _mm_setzero_si128();
		const int32_t c = coef[i], d = pair ? coef[i + 1] : 0;
		const __m256i h = _mm256_set1_epi32((int)((uint32_t)(d >> LOW_BITS) << 16 | (uint16_t)(c >> LOW_BITS)));
		const __m256i l = _mm256_set1_epi32((d & LOW_MASK) << 16 | (c & LOW_MASK));
		const __m256i v0 = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b)), v1 = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b));
		high0 = _mm256_add_epi32(high0, _mm256_madd_epi16(v0, h));
		high1 = _mm256_add_epi32(high1, _mm256_madd_epi16(v1, h));
		low0 = _mm256_add_epi32(low0, _mm256_madd_epi16(v0, l));
		low1 = _mm256_add_epi32(low1, _mm256_madd_epi16(v1, l));
	}
	const __m256i half = _mm256_set1_epi32(HALF);
	const __m256i s0 = _mm256_srai_epi32(_mm256_add_epi32(whole(high0, low0), half), PRECISION);
	const __m256i s1 = _mm256_srai_epi32(_mm256_add_epi32(whole(high1, low1), half), PRECISION);
	// Packing works within halves, so the words come as 0..3 8..11 4..7 12..15.
	const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(s0, s1), 0xD8);
	_mm_storeu_si128((__m128i *)out, _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

AVX2 void qg_columns(const uint8_t *src, size_t src_stride, uint8_t *dst, size_t dst_stride, size_t count, size_t outs,
	const int32_t *from, int32_t min, const int32_t *n, const int32_t *coef, size_t width) {
	for (size_t o = 0; o < outs; o++, dst += dst_stride, coef += width) {
		const uint8_t *in = src + (size_t)(from[o] - min) * src_stride;
		for (size_t x = 0; x + 16 <= count; x += 16) column_bytes(in + x, src_stride, dst + x, coef, n[o]);
		// What is left is done together with its neighbours once more.
		if (count % 16) column_bytes(in + count - 16, src_stride, dst + count - 16, coef, n[o]);
	}
}

// quotient is a / b by way of 1 / b, corrected by the remainder (Markstein 1990, IBM J. Res. Dev. 34 (1)).
AVX2 static inline __m256 quotient(__m256 a, __m256 b, __m256 reciprocal) {
	const __m256 q = _mm256_mul_ps(a, reciprocal);
	return _mm256_fmadd_ps(_mm256_fnmadd_ps(q, b, a), reciprocal, q);
}

// normalised is one colour of 8 pixels; norm is its mean, std and 1 / std.
AVX2 static inline __m256 normalised(__m256i v, const float *norm) {
	const __m256 unit = quotient(_mm256_cvtepi32_ps(v), _mm256_set1_ps(255), _mm256_set1_ps(1 / 255.0f));
	return quotient(_mm256_sub_ps(unit, _mm256_set1_ps(norm[0])), _mm256_set1_ps(norm[1]), _mm256_set1_ps(norm[2]));
}

AVX2 void qg_planes(const uint8_t *src, size_t src_stride, float *red, float *green, float *blue, size_t stride, size_t rows, size_t width,
	const float *norm) {
	// Of each colour the bytes of pixels 0 to 3, which begin at byte 0 of the lower half, and of 4 to 7, at byte 4 of the upper one.
#define PICK(c)                                                                                                      \
	_mm256_setr_epi8(                                                                                                \
		c, -1, -1, -1, c + 3, -1, -1, -1, c + 6, -1, -1, -1, c + 9, -1, -1, -1,                                      \
		c + 4, -1, -1, -1, c + 7, -1, -1, -1, c + 10, -1, -1, -1, c + 13, -1, -1, -1)
	const __m256i reds = PICK(0), greens = PICK(1), blues = PICK(2);
#undef PICK
	for (size_t y = 0; y < rows; y++, src += src_stride, red += stride, green += stride, blue += stride) {
		for (size_t x = 0; x < width; x += 8) {
			if (x + 8 > width) x = width - 8; // what is left is done together with its neighbours once more
			const uint8_t *in = src + 3 * x;
			const __m256i v = _mm256_inserti128_si256(
				_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)in)), _mm_loadu_si128((const __m128i *)(in + 8)), 1);
			_mm256_storeu_ps(red + x, normalised(_mm256_shuffle_epi8(v, reds), norm));
			_mm256_storeu_ps(green + x, normalised(_mm256_shuffle_epi8(v, greens), norm + 3));
			_mm256_storeu_ps(blue + x, normalised(_mm256_shuffle_epi8(v, blues), norm + 6));
		}
	}
}

#else

int qg_simd(void) { return 0; }

void qg_rgb_rows(const uint8_t *src, size_t src_stride, uint8_t *dst, size_t dst_stride, size_t rows, size_t outs,
	const int32_t *from, int32_t min, const int32_t *groups, const int16_t *split, size_t width) {
	(void)src, (void)src_stride, (void)dst, (void)dst_stride, (void)rows, (void)outs;
	(void)from, (void)min, (void)groups, (void)split, (void)width;
}

void qg_columns(const uint8_t *src, size_t src_stride, uint8_t *dst, size_t dst_stride, size_t count, size_t outs,
	const int32_t *from, int32_t min, const int32_t *n, const int32_t *coef, size_t width) {
	(void)src, (void)src_stride, (void)dst, (void)dst_stride, (void)count, (void)outs;
	(void)from, (void)min, (void)n, (void)coef, (void)width;
}

void qg_planes(const uint8_t *src, size_t src_stride, float *red, float *green, float *blue, size_t stride, size_t rows, size_t width,
	const float *norm) {
	(void)src, (void)src_stride, (void)red, (void)green, (void)blue, (void)stride, (void)rows, (void)width, (void)norm;
}

#endif
