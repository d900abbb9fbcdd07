package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/pipeline"
)

func TestTimingTable(t *testing.T) {
	got := timingTable([]pipeline.Stage{
		{Name: "search thresholds", Seconds: 0.0512},
		{
			Name: "score", Images: 48750, Seconds: 640.2, Workers: 2, Waited: 0.5,
			Parts: []pipeline.Part{{Name: "decode", Images: 48750, Seconds: 91.26, CPUSeconds: 80.04}, {Name: "engine int8", Images: 48750, Seconds: 560}},
		},
	})
	// Shares are of two workers: 91.26 s are 45.6 s by the stage's clock, in which 48,750 images are 1,068 a second.
	require.Equal(t, ""+
		"  stage                 images  seconds  CPU s  images/s\n"+
		"  search thresholds                0.05                 \n"+
		"  score                  48750      640               76\n"+
		"    decode               48750     45.6   80.0      1068\n"+
		"    engine int8          48750      280              174\n"+
		"    waiting for images             0.50                 \n", got)
}
