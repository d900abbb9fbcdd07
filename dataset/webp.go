package dataset

import "image"

// fromWebP converts the 4:2:0 picture of a lossy WebP to RGB as libwebp, and so Pillow, does. Go's own conversion repeats
// chroma samples and has other coefficients. Source: libwebp src/dsp/upsampling.c (fancy upsampling) and src/dsp/yuv.h.
func fromWebP(m *image.YCbCr, buf []byte) raster {
	b := m.Bounds()
	out := newRaster(b.Dx(), b.Dy(), 3, buf)
	last := (out.h - 1) / 2
	for y := range out.h {
		// A row lies between two chroma rows, nearer to the one of its own pair.
		near := y / 2
		far := min(max(near-1+y%2*2, 0), last)
		webpRow(out.row(y), m.Y[y*m.YStride:], m.Cb[near*m.CStride:], m.Cb[far*m.CStride:], m.Cr[near*m.CStride:], m.Cr[far*m.CStride:])
	}
	return out
}

// webpRow converts one row of luma with its nearer and farther row of chroma.
func webpRow(row, luma, nearU, farU, nearV, farV []byte) {
	w := len(row) / 3
	last := (w - 1) / 2
	for x := range w {
		side := (x + 1) / 2 // the chroma columns left and right of the pixel are side-1 and side
		own := x / 2
		other := side - 1
		if own == side-1 {
			other = side
		}
		u, v := 0, 0
		if other < 0 || other > last {
			u = (3*int(nearU[own]) + int(farU[own]) + 2) >> 2
			v = (3*int(nearV[own]) + int(farV[own]) + 2) >> 2
		} else {
			u = diagonal(nearU[own], nearU[other], farU[own], farU[other])
			v = diagonal(nearV[own], nearV[other], farV[own], farV[other])
		}
		l := int(luma[x]) * 19077 >> 8
		row[3*x] = clip6(l + v*26149>>8 - 14234)
		row[3*x+1] = clip6(l - u*6419>>8 - v*13320>>8 + 8708)
		row[3*x+2] = clip6(l + u*33050>>8 - 17685)
	}
}

// diagonal weighs four chroma samples 9:3:3:1 with libwebp's rounding in two steps: same is in the pixel's own row and column.
func diagonal(same, beside, above, across byte) int {
	sum := int(same) + int(beside) + int(above) + int(across) + 8
	return ((sum+2*(int(beside)+int(above)))>>3 + int(same)) >> 1
}

// clip6 drops six fractional bits.
func clip6(v int) byte { return byte(min(max(v>>6, 0), 255)) }
