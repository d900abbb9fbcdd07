package dataset

import (
	"archive/tar"
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzIDXHeader(f *testing.F) {
	f.Add(idxBytes([]byte{1, 2, 3, 4}, 1, 2, 2), 3)
	f.Add(idxBytes([]byte{1, 2}, 2), 1)
	f.Add([]byte{0, 0, 8, 3, 255, 255, 255, 255, 0, 0, 0, 1, 0, 0, 0, 1}, 3)
	f.Fuzz(func(t *testing.T, data []byte, dims int) {
		if dims < 1 || dims > 4 {
			return
		}
		h, err := readIDXHeader(bytes.NewReader(data), dims)
		if err != nil {
			require.ErrorIs(t, err, ErrFormat)
			return
		}
		require.Len(t, h.dims, dims)
		require.GreaterOrEqual(t, h.count(), 0)
	})
}

func FuzzBatchHeader(f *testing.F) {
	one := batchBytes(1, 1, 2, 2, []float32{1, 2, 3, 4}, []float32{7})
	f.Add(one, int64(len(one)))
	f.Add(one[:20], int64(36))
	f.Add(batchBytes(1<<31-1, 1<<14, 1<<14, 1<<14, nil, nil), int64(1)<<62)
	f.Fuzz(func(t *testing.T, head []byte, size int64) {
		b, err := parseBatchHeader(head, size)
		if err != nil {
			require.ErrorIs(t, err, ErrFormat)
			return
		}
		want := int64(b.n) * int64(b.image())
		if b.labelled {
			want += int64(b.n)
		}
		require.Equal(t, size, batchHeaderSize+4*want)
	})
}

func FuzzBatchLabels(f *testing.F) {
	f.Add([]byte{0, 0, 128, 63})
	f.Fuzz(func(t *testing.T, raw []byte) {
		classes, err := parseBatchLabels(raw)
		if err != nil {
			require.ErrorIs(t, err, ErrLabels)
			return
		}
		for _, c := range classes {
			require.True(t, c >= 0 && c <= maxClass)
		}
	})
}

func FuzzLabelList(f *testing.F) {
	f.Add([]byte("a.png 1\nb c.png 2\r\n\n"))
	f.Add([]byte("\xEF\xBB\xBF./x/../a.png\t3"))
	f.Add([]byte("/ 1\n.. 2"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parseList(data, "list")
		if err != nil {
			require.ErrorIs(t, err, ErrLabels)
			require.NotContains(t, err.Error(), "\n")
			return
		}
		paths, classes, err := l.match(l.files, "folder")
		if err != nil {
			require.ErrorIs(t, err, ErrLabels)
			return
		}
		require.Equal(t, l.files, paths)
		require.Equal(t, l.classes, classes)
	})
}

func FuzzTarIndex(f *testing.F) {
	f.Add(tarOf(f, tar.FormatGNU, "a.png", []byte("abc"), "x/b.png", make([]byte, 700)))
	f.Add(tarOf(f, tar.FormatPAX, "a.png", []byte("abc"))[:1100])
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := indexTar(context.Background(), bytes.NewReader(data), int64(len(data)), "t.tar")
		if err != nil {
			require.ErrorIs(t, err, ErrFormat)
			return
		}
		for i := range x.names {
			require.True(t, x.offsets[i] >= 0 && x.sizes[i] >= 0 && x.offsets[i]+x.sizes[i] <= int64(len(data)))
		}
	})
}

func FuzzDecode(f *testing.F) {
	turbo := turboOrSkip(f)
	f.Add(tinyPNG(f, 3))
	f.Add([]byte{0xFF, 0xD8, 0xFF, 0xC0, 0, 11, 8, 0, 1, 0, 1, 1, 1, 0x11, 0})
	f.Add([]byte{0xFF, 0xD8, 0xFF, 0xC0, 0, 2})
	f.Fuzz(func(t *testing.T, data []byte) {
		d := &decoder{turbo: turbo}
		defer d.close()
		if img, err := d.decode(data); err == nil {
			require.Len(t, img.pix, img.w*img.h*img.channels)
		}
	})
}
