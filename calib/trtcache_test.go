package calib_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/quantgate/quantgate/calib"
	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/onnx"
	"github.com/quantgate/quantgate/ort"
	"github.com/quantgate/quantgate/tensor"
)

// TestAgainstTensorRT calibrates three ImageNet classifiers as TensorRT 8.6.1 was made to and compares with the caches that it wrote.
// It takes minutes and wants material that is not part of this repository, so it runs only where
// QUANTGATE_TENSORRT_BATCHES names the prefix of folders of sampleINT8 batch files: for prefix /tmp/batches- the folders
// /tmp/batches-imagenet, -half and -unit that the material's make_batches.py writes.
func TestAgainstTensorRT(t *testing.T) {
	prefix := os.Getenv("QUANTGATE_TENSORRT_BATCHES")
	if prefix == "" {
		t.Skip("QUANTGATE_TENSORRT_BATCHES is not set: not compared with real TensorRT caches")
	}
	shared := os.Getenv("QUANTGATE_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "shared")
	}
	library := os.Getenv(ort.EnvLibrary)
	if library == "" {
		library = filepath.Join("..", ".deps", "onnxruntime", "lib", "libonnxruntime.so.1")
	}
	backend, err := ort.New(ort.Options{Library: library})
	require.NoError(t, err)

	for _, m := range []struct {
		model, batches string
		caches         map[string]string // order of feeding -> suffix of TensorRT's entropy cache
	}{
		{"squeezenet1.1", "imagenet", map[string]string{"forward": "", "reversed": "-reversed", "batches of 50": "-b50", "first batch": "-1batch"}},
		{"mobilenet_v1_0.75", "half", map[string]string{"forward": ""}},
		{"darknet_tiny", "unit", map[string]string{"forward": ""}},
	} {
		t.Run(m.model, func(t *testing.T) {
			images := readBatches(t, prefix+m.batches, 20)
			reversed := slices.Clone(images)
			slices.Reverse(reversed)
			tapped := tap(t, backend, filepath.Join(shared, "imagenet", "models", m.model+".onnx"))

			var stable []byte
			for _, feed := range []struct {
				name   string
				images [][]float32
				batch  int
			}{
				{"forward", images, 25}, {"reversed", reversed, 25}, {"batches of 50", images, 50}, {"first batch", images[:25], 25},
			} {
				suffix, compared := m.caches[feed.name]
				if feed.name == "first batch" && !compared {
					continue
				}
				got := tapped.calibrate(t, feed.images, feed.batch)
				path := filepath.Join(shared, "tensorrt", "caches", m.model+".entropy"+suffix+".cache")
				if compared {
					compare(t, feed.name+", entropy", path, got[calib.Entropy], tapped.plan)
				}
				if feed.name == "forward" {
					path = filepath.Join(shared, "tensorrt", "caches", m.model+".minmax.cache")
					d := compare(t, feed.name+", minmax", path, got[calib.MinMax], tapped.plan)
					require.Zero(t, d.Count(calib.OtherBin), "every MinMax scale is within 1e-5")
				}
				if feed.name == "first batch" {
					continue
				}
				var cache bytes.Buffer
				require.NoError(t, calib.WriteTensorRT(&cache, cacheOf(got[calib.EntropyStable], tapped.plan, calib.EntropyStable)))
				if stable == nil {
					stable = cache.Bytes()
				}
				require.Equal(t, string(stable), cache.String(), "%s: entropy-stable gives the same bytes", feed.name)
			}
			t.Logf("entropy-stable: the same %d bytes for every order and batch size", len(stable))
		})
	}
}

// compare checks our entropy thresholds against TensorRT's and logs every tensor in another bin.
func compare(t *testing.T, what, path string, results []calib.Result, plan *onnx.CalibrationPlan) *calib.Diff {
	t.Helper()
	theirs, _, err := calib.ReadFile(path)
	require.NoError(t, err)
	method := calib.Entropy
	hist := map[string]*calib.Histogram{}
	for _, r := range results {
		if r.Histogram == nil {
			method = calib.MinMax
		} else {
			hist[r.Name] = r.Histogram
		}
	}
	ours := cacheOf(results, plan, method)
	d := calib.Compare(ours, theirs, hist)
	require.Equal(t, theirs.Header, ours.Header)
	require.Empty(t, d.OnlyA)
	require.Empty(t, d.OnlyB)
	require.Empty(t, d.Moved)
	var other []calib.Pair // own tensors only: a MaxPool that follows its input into another bin is none
	for i, p := range d.Pairs {
		if p.Relation == calib.OtherBin && plan.Entries[i].SharesScaleOf == "" {
			other = append(other, p)
		}
	}
	t.Logf("%s: %d entries: %d same bits, %d same bin, %d in another bin, of which %d tensors",
		what, len(d.Pairs), d.Count(calib.SameBits), d.Count(calib.SameBin), d.Count(calib.OtherBin), len(other))
	require.LessOrEqual(t, len(other), 2)
	var worst float64
	for _, p := range d.Pairs {
		if p.Relation != calib.OtherBin {
			worst = max(worst, p.RelDiff)
		}
	}
	t.Logf("%s: largest relative difference within a bin %.2g", what, worst)
	for _, p := range other {
		require.NotNil(t, p.Weighed, p.Name)
		t.Logf("%s: %s: bin %d, TensorRT's %d: KL %.9g and %.9g, gap %.2g",
			what, p.Name, p.Weighed.BinA, p.Weighed.BinB, p.Weighed.KLA, p.Weighed.KLB, p.Weighed.Gap)
		require.LessOrEqual(t, p.Weighed.Gap, 1e-3)
	}
	return d
}

// cacheOf gives every entry of the plan its range.
func cacheOf(results []calib.Result, plan *onnx.CalibrationPlan, m calib.Method) *calib.Cache {
	c := &calib.Cache{Header: calib.Header{Version: calib.DefaultVersion, Calibrator: m.Calibrator()}}
	amax := map[string]float32{}
	for _, r := range results {
		amax[r.Name] = r.Amax
	}
	for _, e := range plan.Entries {
		if e.SharesScaleOf != "" {
			amax[e.Name] = amax[e.SharesScaleOf]
		}
		c.Entries = append(c.Entries, calib.NewEntry(e.Name, amax[e.Name]))
	}
	return c
}

// tappedModel computes every tensor that calibration observes.
type tappedModel struct {
	plan    *onnx.CalibrationPlan
	names   []string // entries observed, in the order of the outputs; constants follow
	consts  [][]float32
	session engine.Session
}

func tap(t *testing.T, backend engine.Backend, path string) *tappedModel {
	model, err := onnx.Load(path)
	require.NoError(t, err)
	plan, err := onnx.Plan(model)
	require.NoError(t, err)
	tapped, err := onnx.Tap(model, plan.Observed())
	require.NoError(t, err)
	data, err := tapped.Bytes()
	require.NoError(t, err)
	s, err := backend.Open(context.Background(), engine.Model{Name: path, Data: data}, engine.Options{Threads: 1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	m := &tappedModel{plan: plan, session: s}
	var constants []string
	for _, e := range plan.Entries {
		switch {
		case e.Const:
			constants = append(constants, e.Name)
			m.consts = append(m.consts, e.Values)
		case e.SharesScaleOf == "":
			m.names = append(m.names, e.Name)
		}
	}
	m.names = append(m.names, constants...)
	return m
}

// chunk is the number of images in a run of the engine: QUANTGATE_CHUNK, 1 by default.
func chunk(t *testing.T) int {
	n := 1
	if s := os.Getenv("QUANTGATE_CHUNK"); s != "" {
		_, err := fmt.Sscan(s, &n)
		require.NoError(t, err)
	}
	return n
}

// calibrate runs three methods on the same activations, two goroutines with a shard each.
func (m *tappedModel) calibrate(t *testing.T, images [][]float32, batch int) map[calib.Method][]calib.Result {
	t.Helper()
	const workers = 2
	methods := []calib.Method{calib.Entropy, calib.EntropyStable, calib.MinMax}
	collectors := make([]*calib.Collector, len(methods))
	shards := make([][]*calib.Shard, workers)
	for i, method := range methods {
		c, err := calib.NewCollector(method, m.names, calib.Options{})
		require.NoError(t, err)
		collectors[i] = c
		for w := range shards {
			shards[w] = append(shards[w], c.NewShard())
		}
	}
	n := chunk(t)
	pass := func(images [][]float32, see func(w, i int, x []float32)) {
		var g errgroup.Group
		for w := range workers {
			g.Go(func() error {
				in, out := tensor.New(int64(n), 3, 224, 224), make([]*tensor.Tensor, len(m.session.Outputs()))
				for i := range out {
					out[i] = &tensor.Tensor{}
				}
				for k := w * n; k < len(images); k += workers * n {
					for i := range n {
						copy(in.Row(i), images[k+i])
					}
					if err := m.session.Run(context.Background(), in, out); err != nil {
						return err
					}
					for i, o := range out {
						see(w, i, o.Data)
					}
				}
				return nil
			})
		}
		require.NoError(t, g.Wait())
		for i, x := range m.consts {
			see(0, len(m.names)-len(m.consts)+i, x)
		}
	}
	for part := range slices.Chunk(images, batch) {
		if collectors[0].NeedsFirstMax() {
			pass(part, func(w, i int, x []float32) { shards[w][0].ObserveMax(i, x) })
			require.NoError(t, collectors[0].EndFirstMax())
		}
		pass(part, func(w, i int, x []float32) {
			for _, s := range shards[w] {
				s.Observe(i, x)
			}
		})
		for _, c := range collectors {
			require.NoError(t, c.EndBatch())
		}
	}
	results := map[calib.Method][]calib.Result{}
	for i, c := range collectors {
		r, err := c.Results()
		require.NoError(t, err)
		results[methods[i]] = r
	}
	return results
}

// readBatches reads the images of batch0..: int32 N, C, H, W, then N*C*H*W float32, then labels.
func readBatches(t *testing.T, dir string, batches int) [][]float32 {
	t.Helper()
	var images [][]float32
	for b := range batches {
		data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("batch%d", b)))
		require.NoError(t, err)
		require.Greater(t, len(data), 16)
		dim := func(i int) int { return int(binary.LittleEndian.Uint32(data[4*i:])) }
		n, each := dim(0), dim(1)*dim(2)*dim(3)
		data = data[16:]
		require.GreaterOrEqual(t, len(data), 4*n*each)
		for range n {
			x := make([]float32, each)
			for i := range x {
				x[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
			}
			images = append(images, x)
			data = data[4*each:]
		}
	}
	return images
}
