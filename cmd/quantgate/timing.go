package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/quantgate/quantgate/pipeline"
)

// took tells the user where the time went.
func (a *app) took(result *pipeline.Result) {
	if len(result.Stages) == 0 {
		return
	}
	a.ui.Infof("took:")
	for line := range strings.Lines(timingTable(result.Stages)) {
		a.ui.Infof("%s", strings.TrimRight(line, " \n"))
	}
	if b := result.Bottleneck(); b != "" {
		a.ui.Infof("bottleneck: %s", b)
	}
}

// timingTable lists what the stages and their parts took, by the stages' clock.
func timingTable(stages []pipeline.Stage) string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, images int, seconds, cpu, rate float64) {
		cells := []string{"", seconds3(seconds), "", ""}
		if images > 0 {
			cells[0] = strconv.Itoa(images)
		}
		if cpu > 0 {
			cells[2] = seconds3(cpu)
		}
		if rate > 0 {
			cells[3] = fmt.Sprintf("%.0f", rate)
		}
		fmt.Fprintf(w, "%s\t%s\t\n", name, strings.Join(cells, "\t"))
	}
	width := len("waiting for images") + 2
	for _, s := range stages {
		for _, p := range s.Parts {
			width = max(width, len(p.Name)+2)
		}
		width = max(width, len(s.Name))
	}
	left := func(name string) string { return fmt.Sprintf("%-*s", width, name) }
	fmt.Fprintf(w, "%s\timages\tseconds\tCPU s\timages/s\t\n", left("stage"))
	for _, s := range stages {
		row(left(s.Name), s.Images, s.Seconds, 0, s.Rate())
		for _, p := range s.Parts {
			row(left("  "+p.Name), p.Images, s.Share(p), p.CPUSeconds, s.PartRate(p))
		}
		if len(s.Parts) > 0 {
			row(left("  waiting for images"), 0, s.Waited, 0, 0)
		}
	}
	_ = w.Flush() // to memory
	return b.String()
}

// seconds3 is a duration in seconds with the digits that matter.
func seconds3(s float64) string {
	switch {
	case s >= 100:
		return fmt.Sprintf("%.0f", s)
	case s >= 10:
		return fmt.Sprintf("%.1f", s)
	}
	return fmt.Sprintf("%.2f", s)
}
