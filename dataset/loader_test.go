package dataset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// numbered makes n images, image i of value i, as a list.
func numbered(t testing.TB, n int) (dir, labels string) {
	t.Helper()
	var paths, list []string
	for i := range n {
		paths = append(paths, fmt.Sprintf("%03d.png", i))
		list = append(list, fmt.Sprintf("%03d.png %d", i, i%7))
	}
	return imageFolder(t, paths...), listFile(t, list...)
}

func ids(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

// unit2 crops 2 x 2 pixels to 0..1.
func unit2(t testing.TB, channels int) Preprocess {
	t.Helper()
	p, err := Preset("unit", channels)
	require.NoError(t, err)
	p.InputSize, p.CropOffset = 2, &[2]int{1, 1}
	return p
}

func TestLoaderOrderIsTheSameForAnyWorkers(t *testing.T) {
	dir, labels := numbered(t, 53)
	d := open(t, Options{Images: dir, Labels: labels})
	want := ids(53)
	for i, j := 0, len(want)-1; i < j; i, j = i+1, j-1 {
		want[i], want[j] = want[j], want[i]
	}
	before := runtime.NumGoroutine()
	for _, workers := range []int{1, 2, 7} {
		for _, ahead := range []int{1, 5} {
			l := d.Load(context.Background(), want, LoadOptions{Preprocess: unit2(t, 3), BatchSize: 10, Workers: workers, Ahead: ahead})
			var got []int
			for index := 0; ; index++ {
				b, err := l.Next(context.Background())
				if errors.Is(err, io.EOF) {
					break
				}
				require.NoError(t, err)
				require.Equal(t, index, b.Index)
				n := 10
				if index == 5 {
					n = 3
				}
				require.Equal(t, []int64{int64(n), 3, 2, 2}, []int64(b.X.Shape))
				for i, it := range b.Items {
					require.Equal(t, it.ID%7, it.Label)
					for _, v := range b.X.Row(i) {
						require.Equal(t, float32(it.ID)/255, v)
					}
					got = append(got, it.ID)
				}
				b.Release()
			}
			require.Equal(t, want, got)
			_, err := l.Next(context.Background())
			require.ErrorIs(t, err, io.EOF)
			require.NoError(t, l.Close())
			require.NoError(t, l.Close())
		}
	}
	requireNoMoreGoroutines(t, before)
}

func requireNoMoreGoroutines(t *testing.T, before int) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		require.True(t, time.Now().Before(end), "%d goroutines are left over", runtime.NumGoroutine()-before)
	}
}

func TestLoaderMemoryIsBoundedAndRecycled(t *testing.T) {
	dir, labels := numbered(t, 60)
	d := open(t, Options{Images: dir, Labels: labels})
	l := d.Load(context.Background(), ids(60), LoadOptions{Preprocess: unit2(t, 1), BatchSize: 2, Workers: 2, Ahead: 3})
	defer func() { require.NoError(t, l.Close()) }()
	seen := map[*float32]bool{}
	for b, err := range l.All(context.Background()) {
		require.NoError(t, err)
		seen[&b.X.Data[0]] = true
	}
	// Three ahead, one being handed out, one at the consumer and one that waits to be dispatched.
	require.LessOrEqual(t, len(seen), 6)
}

// TestLoaderMemory gives batches less memory than they need, enough, and pieces that are too small, and holds several of them at once.
func TestLoaderMemory(t *testing.T) {
	const n, size, held = 60, 4, 3
	dir, labels := numbered(t, n)
	d := open(t, Options{Images: dir, Labels: labels})
	o := LoadOptions{Preprocess: unit2(t, 3), BatchSize: size, Workers: 3, Ahead: 2}
	require.Equal(t, 7, o.InFlight(held))
	require.Equal(t, 5, LoadOptions{}.InFlight(1), "two ahead")
	for name, c := range map[string]struct {
		pieces, length int
		all            bool // batches that lie in the memory
	}{
		"enough":    {o.InFlight(held), size * 3 * 2 * 2, true},
		"one":       {1, size * 3 * 2 * 2, false},
		"too small": {o.InFlight(held), size*3*2*2 - 1, false},
		"too large": {o.InFlight(held), size*3*2*2 + 5, true},
	} {
		t.Run(name, func(t *testing.T) {
			o := o
			mine := map[*float32]bool{}
			for range c.pieces {
				x := make([]float32, c.length)
				o.Memory, mine[&x[0]] = append(o.Memory, x), true
			}
			l := d.Load(context.Background(), ids(n), o)
			tokens, inside, images := make(chan struct{}, held), make(chan bool, n), make(chan int, n)
			for {
				tokens <- struct{}{}
				b, err := l.Next(context.Background())
				if errors.Is(err, io.EOF) {
					<-tokens
					break
				}
				require.NoError(t, err)
				go func() {
					for i, it := range b.Items {
						for _, v := range b.X.Row(i) {
							if v != float32(it.ID)/255 {
								t.Errorf("image %d has the value %v", it.ID, v)
							}
						}
						images <- it.ID
					}
					inside <- mine[&b.X.Data[0]]
					b.Release()
					<-tokens
				}()
			}
			for range held {
				tokens <- struct{}{}
			}
			require.NoError(t, l.Close())
			close(inside)
			close(images)
			in, batches, sum := 0, 0, 0
			for yes := range inside {
				batches++
				if yes {
					in++
				}
			}
			for id := range images {
				sum += id
			}
			require.Equal(t, n/size, batches)
			require.Equal(t, n*(n-1)/2, sum)
			switch {
			case c.all:
				require.Equal(t, batches, in)
			case name == "one":
				require.NotZero(t, in)
			default:
				require.Zero(t, in)
			}
		})
	}
	// Closed with batches in every state; one is released afterwards.
	o.Memory = [][]float32{make([]float32, size*12), make([]float32, size*12)}
	l := d.Load(context.Background(), ids(n), o)
	b, err := l.Next(context.Background())
	require.NoError(t, err)
	require.NoError(t, l.Close())
	for i, it := range b.Items {
		require.Equal(t, float32(it.ID)/255, b.X.Row(i)[0])
	}
	b.Release()
}

func TestLoaderBadImages(t *testing.T) {
	dir, labels := numbered(t, 20)
	for _, i := range []int{3, 4, 5, 11} {
		write(t, filepath.Join(dir, fmt.Sprintf("%03d.png", i)), tinyPNG(t, 9)[:40])
	}
	d := open(t, Options{Images: dir, Labels: labels})
	load := func(maxBad, workers int) (items, bad []int, err error) {
		l := d.Load(context.Background(), ids(20), LoadOptions{Preprocess: unit2(t, 1), BatchSize: 3, Workers: workers, MaxBad: maxBad})
		defer func() { require.NoError(t, l.Close()) }()
		for b, err := range l.All(context.Background()) {
			if err != nil {
				return items, bad, err
			}
			require.Equal(t, int64(len(b.Items)), b.X.Shape[0])
			for i, it := range b.Items {
				require.Equal(t, float32(it.ID)/255, b.X.Row(i)[0])
				items = append(items, it.ID)
			}
			for _, x := range b.Bad {
				require.ErrorIs(t, x.Err, ErrTruncated)
				bad = append(bad, x.Item.ID)
			}
		}
		return items, bad, nil
	}
	for _, workers := range []int{1, 4} {
		items, bad, err := load(4, workers)
		require.NoError(t, err)
		require.Equal(t, []int{0, 1, 2, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19}, items)
		require.Equal(t, []int{3, 4, 5, 11}, bad)

		_, _, err = load(0, workers)
		require.ErrorIs(t, err, ErrTruncated)
		require.ErrorContains(t, err, "image 003.png: ")

		items, bad, err = load(3, workers)
		require.ErrorIs(t, err, ErrTooManyBad)
		require.ErrorContains(t, err, "3 are allowed, and the next is image 011.png: ")
		require.Len(t, items, 6)
		require.Len(t, bad, 3)
	}
}

func TestLoaderStops(t *testing.T) {
	dir, labels := numbered(t, 40)
	d := open(t, Options{Images: dir, Labels: labels})
	before := runtime.NumGoroutine()
	o := LoadOptions{Preprocess: unit2(t, 3), BatchSize: 2, Workers: 3}

	l := d.Load(context.Background(), ids(40), o)
	_, err := l.Next(context.Background())
	require.NoError(t, err)
	require.NoError(t, l.Close()) // in the middle
	_, err = l.Next(context.Background())
	require.ErrorIs(t, err, context.Canceled)

	ctx, cancel := context.WithCancel(context.Background())
	l = d.Load(ctx, ids(40), o)
	cancel()
	_, err = l.Next(context.Background())
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, l.Close())

	l = d.Load(context.Background(), ids(40), o)
	_, err = l.Next(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, l.Close())
	requireNoMoreGoroutines(t, before)
}

func TestLoaderRefuses(t *testing.T) {
	dir, labels := numbered(t, 4)
	d := open(t, Options{Images: dir, Labels: labels})
	good := unit2(t, 3)
	wide := good
	wide.Mean = []float32{1}
	far := good
	far.CropOffset = &[2]int{3, 0}
	for want, c := range map[string]struct {
		ids []int
		o   LoadOptions
	}{
		"batch size 0":                      {ids(4), LoadOptions{Preprocess: good}},
		"image id 4":                        {[]int{4}, LoadOptions{Preprocess: good, BatchSize: 1}},
		"mean has 1 values for 3 channels":  {ids(4), LoadOptions{Preprocess: wide, BatchSize: 1}},
		"image 000.png: crop of 2x2 at 3,0": {ids(4), LoadOptions{Preprocess: far, BatchSize: 1}},
		"workers -1":                        {ids(4), LoadOptions{Preprocess: good, BatchSize: 1, Workers: -1}},
	} {
		l := d.Load(context.Background(), c.ids, c.o)
		_, err := l.Next(context.Background())
		require.ErrorContains(t, err, want)
		require.NoError(t, l.Close())
	}
	l := d.Load(context.Background(), nil, LoadOptions{Preprocess: good, BatchSize: 1})
	_, err := l.Next(context.Background())
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, l.Close())
}

// TestNoHalfWrittenBatches: an image in the last batch cannot be read, so no batch file is left, and once it can be, a repeat
// writes them all.
func TestNoHalfWrittenBatches(t *testing.T) {
	dir, labels := numbered(t, 11)
	last := filepath.Join(dir, "010.png")
	whole, err := os.ReadFile(last)
	require.NoError(t, err)
	d := open(t, Options{Images: dir, Labels: labels})
	pack := func(out string) (int, error) {
		l := d.Load(context.Background(), ids(11), LoadOptions{Preprocess: unit2(t, 3), BatchSize: 4})
		defer func() { require.NoError(t, l.Close()) }()
		return WriteBatches(out, l.All(context.Background()))
	}
	names := func(dir string) (names []string) {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	made := filepath.Join(t.TempDir(), "made")
	had := t.TempDir()
	write(t, filepath.Join(had, "notes.txt"), []byte("mine"))

	write(t, last, whole[:len(whole)/2])
	for _, out := range []string{made, had} {
		n, err := pack(out)
		require.ErrorContains(t, err, "010.png")
		require.Zero(t, n)
	}
	require.NoDirExists(t, made)
	require.Equal(t, []string{"notes.txt"}, names(had))

	write(t, last, whole)
	for _, out := range []string{made, had} {
		n, err := pack(out)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		require.Len(t, open(t, Options{Images: out}).Items(), 11)
	}
	require.Equal(t, []string{"batch0", "batch1", "batch2"}, names(made))
	require.Equal(t, []string{"batch0", "batch1", "batch2", "notes.txt"}, names(had))
}

func TestPackedBatchesReadBackTheSame(t *testing.T) {
	dir, labels := numbered(t, 11)
	d := open(t, Options{Images: dir, Labels: labels})
	o := LoadOptions{Preprocess: unit2(t, 3), BatchSize: 4}
	l := d.Load(context.Background(), ids(11), o)
	out := filepath.Join(t.TempDir(), "new", "packed")
	n, err := WriteBatches(out, l.All(context.Background()))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.Equal(t, 3, n)

	_, err = WriteBatches(out, l.All(context.Background()))
	require.ErrorContains(t, err, "holds batch0 already")

	p := open(t, Options{Images: out})
	require.Equal(t, []string{"batch0#0 0", "batch0#1 1"}, lines(p.Items()[:2]))
	packed := p.Load(context.Background(), ids(11), LoadOptions{BatchSize: 11, Preprocess: Preprocess{Channels: 3, InputSize: 2}})
	defer func() { require.NoError(t, packed.Close()) }()
	b, err := packed.Next(context.Background())
	require.NoError(t, err)
	for i, it := range b.Items {
		require.Equal(t, d.Items()[i].Label, it.Label)
		require.Equal(t, float32(i)/255, b.X.Row(i)[0])
	}
	for _, p2 := range []Preprocess{{Channels: 1}, {InputSize: 3}} {
		wrong := p.Load(context.Background(), ids(11), LoadOptions{BatchSize: 1, Preprocess: p2})
		_, err := wrong.Next(context.Background())
		require.ErrorContains(t, err, "the model takes")
		require.NoError(t, wrong.Close())
	}
}

// The digests are of batch0 ... batch3 together as make_batches.py of the reference material writes them.
func TestRealImagesEqualReferenceTensors(t *testing.T) {
	images := sharedOrSkip(t, "imagenet/val1300")
	turboOrSkip(t)
	d := open(t, Options{Images: images, Labels: sharedOrSkip(t, "imagenet/val1300.txt"), Limit: 100})
	for preset, want := range map[string]string{
		"imagenet": "f0e44029d7ca45f6a99329525bbcb624e8c6b3edab48e253885fb68edf752dc4",
		"unit":     "bc55bf68e2eb37f217b5669ed3616985add26cd851d3df06ff1070e2167340ff",
	} {
		p, err := Preset(preset, 3)
		require.NoError(t, err)
		p.InputSize, p.CropOffset = 224, &[2]int{1, 1}
		h := sha256.New()
		l := d.Load(context.Background(), ids(100), LoadOptions{Preprocess: p, BatchSize: 25})
		var buf []byte
		for b, err := range l.All(context.Background()) {
			require.NoError(t, err)
			buf = appendBatch(buf[:0], b)
			h.Write(buf)
		}
		require.NoError(t, l.Close())
		require.Equal(t, want, hex.EncodeToString(h.Sum(nil)), preset)
	}
}

func TestVerify(t *testing.T) {
	dir, labels := numbered(t, 60)
	write(t, filepath.Join(dir, "007.png"), tinyPNG(t, 7)[:50])
	for _, copied := range []string{"031.png", "040.png"} {
		write(t, filepath.Join(dir, copied), tinyPNG(t, 2))
	}
	d := open(t, Options{Images: dir, Labels: labels})
	r, err := Verify(context.Background(), d, VerifyOptions{BatchSize: 25, CalibBatches: 1})
	require.NoError(t, err)
	require.False(t, r.OK())
	require.Equal(t, 60, r.Images)
	require.Equal(t, 7, r.Classes)
	require.Equal(t, Range{8, 9}, r.PerClass)
	require.Equal(t, Range{4, 4}, r.Height)
	require.Equal(t, []Duplicate{{[]string{"002.png", "031.png", "040.png"}, []int{2, 3, 5}}}, r.Duplicates)
	require.Len(t, r.Unreadable, 1)
	require.Equal(t, "007.png", r.Unreadable[0].Path)
	require.Equal(t, &BatchPlan{BatchSize: 25, Batches: 3, Last: 10, Calibrate: 1, Calibrated: 25, Scored: 35}, r.Plan)

	r, err = Verify(context.Background(), d, VerifyOptions{BatchSize: 25, CalibBatches: 50})
	require.NoError(t, err)
	require.Nil(t, r.Plan)
	require.Contains(t, r.PlanError, "too few images")

	for want, o := range map[string]VerifyOptions{
		"batch size 0: give at least 1 (--batch-size)": {},
		"-1 calibration batches":                       {BatchSize: 25, CalibBatches: -1},
		"workers -1":                                   {BatchSize: 25, Workers: -1},
	} {
		o.Progress = func(int) { t.Error("an image was decoded for options that no run takes") }
		_, err := Verify(context.Background(), d, o)
		require.ErrorContains(t, err, want)
	}

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = Verify(ctx, d, VerifyOptions{BatchSize: 25})
	require.ErrorIs(t, err, context.Canceled)
}

func TestDamagedFiles(t *testing.T) {
	turbo := turboOrSkip(t)
	read := func(name string) []byte {
		data, err := os.ReadFile("testdata/golden/decode-" + name)
		require.NoError(t, err)
		return data
	}
	jpg, progressive, pngs := read("jpeg-420.jpg"), read("jpeg-progressive.jpg"), read("png-rgba.png8")
	scan := bytes.Index(jpg, []byte{0xFF, 0xDA})
	stray := append(append(bytes.Clone(jpg[:scan]), 0, 0, 0), jpg[scan:]...) // libjpeg warns of stray bytes and goes on
	for _, d := range []*decoder{{turbo: turbo}, {}} {
		for name, c := range map[string]struct {
			data []byte
			is   error
		}{
			"jpeg cut":             {jpg[:len(jpg)*2/3], ErrTruncated},
			"jpeg without its end": {jpg[:len(jpg)-2], ErrTruncated},
			"progressive cut":      {progressive[:len(progressive)/2], ErrTruncated},
			"jpeg head only":       {jpg[:30], ErrTruncated},
			"stray bytes and cut":  {stray[:len(stray)*2/3], ErrTruncated},
			"png cut":              {pngs[:len(pngs)/2], ErrTruncated},
			"text":                 {[]byte("not an image"), ErrFormat},
		} {
			_, err := d.decode(c.data)
			require.ErrorIs(t, err, c.is, "%s with libjpeg-turbo %v", name, d.turbo != nil)
		}
		_, err := d.decode(nil)
		require.ErrorContains(t, err, "empty")
		d.close()
	}
	d := &decoder{turbo: turbo}
	defer d.close()
	got, err := d.decode(stray)
	require.NoError(t, err, "a harmless warning is not an error")
	requireSamePixels(t, readPNG(t, "testdata/golden/decode-jpeg-420.golden.png"), got)

	ends := append(bytes.Clone(jpg[:len(jpg)*2/3]), 0xFF, 0xD9)
	_, err = d.decode(ends)
	require.ErrorIs(t, err, ErrTruncated, "data that end before the end marker")
}

func TestFallbackDecoderIsNamedOnce(t *testing.T) {
	dir, labels := numbered(t, 2)
	t.Setenv(JPEGLibraryEnv, "none")
	d := open(t, Options{Images: dir, Labels: labels})
	require.Contains(t, d.Decoder(), "image/jpeg (go")

	t.Setenv(JPEGLibraryEnv, "libabsent.so")
	_, err := Open(context.Background(), Options{Images: dir, Labels: labels})
	require.ErrorContains(t, err, "libabsent.so")
	_, err = JPEGDecoder("")
	require.ErrorContains(t, err, "libabsent.so")

	t.Setenv(JPEGLibraryEnv, "libc.so.6") // a library, and not this one
	_, err = Open(context.Background(), Options{Images: dir, Labels: labels})
	require.ErrorContains(t, err, "tjInitDecompress")
}

// The fallback's pixels are near libjpeg-turbo's: chroma is upsampled more simply.
func TestFallbackDecoderIsClose(t *testing.T) {
	data, err := os.ReadFile("testdata/golden/decode-jpeg-444.jpg")
	require.NoError(t, err)
	want := readPNG(t, "testdata/golden/decode-jpeg-444.golden.png")
	got, err := new(decoder).decode(data)
	require.NoError(t, err)
	for i := range want.pix {
		require.InDelta(t, want.pix[i], got.pix[i], 4)
	}
}
