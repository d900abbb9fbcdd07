package trt_test

import (
	"context"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/engine"
	"github.com/quantgate/quantgate/internal/trttest"
	"github.com/quantgate/quantgate/tensor"
	"github.com/quantgate/quantgate/trt"
)

func group(t *testing.T, version int, devices ...int) (*trt.Group, *messages, string) {
	t.Helper()
	m := &messages{}
	lib := trttest.Build(t, version)
	g, err := trt.NewGroup(trt.Options{Library: lib, Batch: 4, CacheDir: t.TempDir(), Log: m.log}, devices)
	require.NoError(t, err)
	return g, m, lib
}

// The fake driver refuses memory in another device's context, so a call that lands on the wrong GPU fails.
func TestGroup(t *testing.T) {
	t.Setenv("FAKE_DEVICES", "3")
	t.Setenv("FAKE_TRT", "one_logger") // whose messages would reach nobody
	ctx := context.Background()
	each(t, func(t *testing.T, version int) {
		g, m, lib := group(t, version, 0, 1, 2)
		one, err := trt.New(trt.Options{Library: lib, CacheDir: t.TempDir()})
		require.NoError(t, err)
		require.Equal(t, one.Version(), g.Version(), "so that a run of three GPUs can be continued on one")
		require.Equal(t, 3, g.Size())
		require.Equal(t, "Fake GPU", g.DeviceName())

		objects, memory := trttest.Live(t, lib)
		s, err := g.Open(ctx, model, engine.Options{Outputs: []string{"y"}})
		require.NoError(t, err)
		require.Equal(t, 1, m.count("built in"), "the others load the first one's plan")
		var wg sync.WaitGroup
		for w := range 9 {
			wg.Go(func() {
				for i := range 40 {
					x, out := images(1+(w+i)%6, w*100+i), []*tensor.Tensor{{}}
					if err := s.Run(ctx, x, out); err != nil || !equal(out[0].Data, twice(x.Data)) {
						t.Errorf("goroutine %d: %v", w, err)
						return
					}
				}
			})
		}
		wg.Wait()
		layers, err := s.(engine.Inspector).Layers()
		require.NoError(t, err)
		require.Len(t, layers, 1)
		loop, ok := s.(interface {
			Fill(context.Context, *tensor.Tensor) error
			Repeat(context.Context, int) error
		})
		require.True(t, ok)
		require.NoError(t, loop.Fill(ctx, images(4, 1)))
		require.NoError(t, loop.Repeat(ctx, 5))
		cache, err := g.Calibrate(ctx, model, engine.Calibration{Batch: 4, Next: source(2, 4, io.EOF)})
		require.NoError(t, err)
		require.Contains(t, string(cache), "x: ")
		require.NoError(t, s.Close())
		require.NoError(t, s.Close())
		require.ErrorIs(t, s.Run(ctx, images(1, 0), []*tensor.Tensor{{}}), engine.ErrClosed)
		objectsAfter, memoryAfter := trttest.Live(t, lib)
		require.LessOrEqual(t, objectsAfter-objects, 4, "a builder, and a runtime a GPU, stay")
		require.Equal(t, memory, memoryAfter)
	})
}

func TestGroupFailures(t *testing.T) {
	t.Setenv("FAKE_DEVICES", "2")
	ctx := context.Background()
	g, _, lib := group(t, 8601, 0, 1)
	s, err := g.Open(ctx, model, engine.Options{Outputs: []string{"y"}})
	require.NoError(t, err)
	defer s.Close()
	t.Setenv("FAKE_LOST", "1:3")
	var failed error
	for i := range 40 {
		if err := s.Run(ctx, images(2, i), []*tensor.Tensor{{}}); err != nil {
			failed = err
		}
	}
	require.ErrorContains(t, failed, "GPU 1 (Fake GPU): ")
	require.ErrorContains(t, failed, "uncorrectable ECC error")
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, s.Run(cancelled, images(2, 0), []*tensor.Tensor{{}}), context.Canceled)

	_, err = trt.NewGroup(trt.Options{Library: lib}, []int{0, 2})
	require.ErrorContains(t, err, "device 2: ")
	require.ErrorIs(t, err, engine.ErrUnavailable)
	_, err = trt.NewGroup(trt.Options{Library: lib}, []int{0, 0})
	require.ErrorContains(t, err, "named twice")
	_, err = trt.NewGroup(trt.Options{Library: lib}, nil)
	require.ErrorContains(t, err, "no device")
	t.Setenv("FAKE_OTHER", "1")
	_, err = trt.NewGroup(trt.Options{Library: lib}, []int{0, 1})
	require.ErrorContains(t, err, "device 1 is Other GPU and device 0 is Fake GPU")
}

func TestParseDevices(t *testing.T) {
	t.Setenv("FAKE_DEVICES", "4")
	lib := trttest.Build(t, 8601)
	for list, want := range map[string][]int{"all": {0, 1, 2, 3}, "0": {0}, "2, 0": {2, 0}} {
		got, err := trt.ParseDevices(list, lib)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for list, want := range map[string]string{"": `"" is not`, "0,": `"" is not`, "one": `"one" is not`, "-1": `"-1" is not`, "1,1": "1 is named twice"} {
		_, err := trt.ParseDevices(list, lib)
		require.ErrorContains(t, err, want)
	}
	t.Setenv("FAKE_DEVICES", "0")
	_, err := trt.ParseDevices("all", lib)
	require.ErrorIs(t, err, engine.ErrUnavailable)
	t.Setenv("FAKE_CUDA", "no_device")
	_, err = trt.ParseDevices("all", lib)
	require.ErrorContains(t, err, "no CUDA-capable device")
}

func TestDevices(t *testing.T) {
	t.Setenv("FAKE_DEVICES", "2")
	lib := trttest.Build(t, 8601)
	all, err := trt.Devices(lib)
	require.NoError(t, err)
	require.Len(t, all, 2)
	d := all[1]
	require.NoError(t, d.Problem)
	require.Equal(t, "0000:01:00.0", d.PCI)
	require.Equal(t, 132, d.SMs)
	require.True(t, d.FP16 && d.INT8 && d.TF32 && d.FP8)
	require.Equal(t, trt.Limits{ClockMHz: 1981, MemoryClockMHz: 2619, PowerWatts: 700}, d.Limits)
	require.Equal(t, 1981, d.State.ClockMHz)
	require.Equal(t, 51, d.State.TemperatureC)
	require.InDelta(t, 501, d.State.PowerWatts, 1e-9)
	require.Equal(t, "550.54", d.Driver)

	t.Setenv("FAKE_NVML", "no_driver")
	all, err = trt.Devices(lib)
	require.NoError(t, err)
	require.ErrorContains(t, all[0].Problem, "Driver Not Loaded")

	t.Setenv("FAKE_NVML", "slow")
	g, _, _ := group(t, 8601, 1, 0)
	sensors, err := g.Sensors()
	require.NoError(t, err)
	require.Len(t, sensors, 2)
	r, err := sensors[0].Read()
	require.NoError(t, err)
	require.Equal(t, 901, r.ClockMHz, "the sensors are in the group's order")
	require.Equal(t, []string{"SW power cap", "SW thermal slowdown"}, r.Throttled)
}

// A driver that lacks functions tells less; only what finds a GPU and reads its clocks must be there.
func TestOldManagementLibrary(t *testing.T) {
	lib := trttest.Build(t, 8601, "-DOLD_NVML")
	all, err := trt.Devices(lib)
	require.NoError(t, err)
	require.NoError(t, all[0].Problem)
	require.Equal(t, trt.Reading{ClockMHz: 1980, MemoryClockMHz: 2619}, all[0].State)
	require.Zero(t, all[0].Limits)
	require.Empty(t, all[0].Driver)

	lib = trttest.Build(t, 8601, "-DOLD_NVML", "-DnvmlDeviceGetClockInfo=renamed")
	all, err = trt.Devices(lib)
	require.NoError(t, err)
	require.ErrorContains(t, all[0].Problem, "nvmlDeviceGetClockInfo")
}
