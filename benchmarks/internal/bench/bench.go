// Package bench measures two sides in pairs and writes what came out as the lines of JSON that benchmarks/collect reads.
package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Line is one comparison, or one figure of ours alone.
type Line struct {
	Bench  string `json:"bench"`  // program/case
	What   string `json:"what"`   // the document's section
	Metric string `json:"metric"` // in a few words: CPU time, peak memory, images/s
	Unit   string `json:"unit"`   // of Ours and Theirs

	Ours   float64  `json:"ours"`             // median over the pairs
	Peer   string   `json:"peer,omitempty"`   // the other side in a few words
	Theirs *float64 `json:"theirs,omitempty"` // median; nil where there is no other side, or it is absent

	Ratio   *float64 `json:"ratio,omitempty"` // median over the pairs of each pair's own
	RatioOf string   `json:"ratio_of,omitempty"`
	Low     *float64 `json:"low,omitempty"` // of the pairs' ratios
	High    *float64 `json:"high,omitempty"`
	Pairs   int      `json:"pairs,omitempty"`

	Bar  string `json:"bar,omitempty"`  // what Ratio, or Ours where there is none, must be: "<= 3.5"
	Goal string `json:"goal,omitempty"` // what it should be

	Absent   string            `json:"absent,omitempty"` // why there is no other side
	Versions map[string]string `json:"versions,omitempty"`
	Note     string            `json:"note,omitempty"`
}

// The two directions of a ratio.
const (
	OursOfTheirs = "ours/theirs" // how much more we need
	TheirsOfOurs = "theirs/ours" // how much less we need
)

// Measure runs both sides n times in turn, the other one first in every second pair, and fills in medians, ratio and spread.
func (l *Line) Measure(n int, ours, theirs func() (float64, error)) error {
	var us, them []float64
	err := InTurn(n,
		func() error { v, err := ours(); us = append(us, v); return err },
		func() error { v, err := theirs(); them = append(them, v); return err },
	)
	if err == nil {
		l.Set(us, them)
	}
	return err
}

// PerPair is how often sides of our own are measured for one time beside a peer, which takes far longer: single ratios vary by 5 %.
const PerPair = 3

// InTurn runs all sides n times, every second time the last one first, so that a machine that gets slower or faster favours none.
func InTurn(n int, sides ...func() error) error {
	for range n {
		for _, side := range sides {
			if err := side(); err != nil {
				return err
			}
		}
		slices.Reverse(sides)
	}
	return nil
}

// Set fills in medians, ratio and spread from measured pairs; theirs is nil where there is no other side.
func (l *Line) Set(ours, theirs []float64) {
	l.Ours, l.Pairs = Median(ours), len(ours)
	if len(theirs) == 0 {
		return
	}
	m := Median(theirs)
	l.Theirs = &m
	if l.RatioOf == "" {
		l.RatioOf = OursOfTheirs
	}
	var ratios []float64
	for i := range ours {
		r := ours[i] / theirs[i]
		if l.RatioOf == TheirsOfOurs {
			r = 1 / r
		}
		ratios = append(ratios, r)
	}
	mid, low, high := Median(ratios), slices.Min(ratios), slices.Max(ratios)
	l.Ratio, l.Low, l.High = &mid, &low, &high
}

// Median of xs, the mean of the middle two where their number is even; 0 of none.
func Median(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(xs))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// Write prints the line.
func (l *Line) Write(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false) // bars have < and >
	return enc.Encode(l)
}

// Parse reads a line of a benchmark's output; ok is false for text that is not one of ours.
func Parse(text []byte) (l Line, ok bool, err error) {
	text = bytes.TrimSpace(text)
	if !bytes.HasPrefix(text, []byte(`{"bench":`)) {
		return l, false, nil
	}
	if err := json.Unmarshal(text, &l); err != nil {
		return l, true, fmt.Errorf("%s: %w", text, err)
	}
	for _, limit := range []string{l.Bar, l.Goal} {
		if _, _, err := parseLimit(limit); err != nil {
			return l, true, fmt.Errorf("%s: %w", l.Bench, err)
		}
	}
	return l, true, nil
}

// Figure is what limits apply to: the ratio, or ours where there is no other side by design. ok is false where the other side is absent.
func (l *Line) Figure() (x float64, ok bool) {
	switch {
	case l.Ratio != nil:
		return *l.Ratio, true
	case l.Absent != "":
		return 0, false
	}
	return l.Ours, true
}

// Meets reports whether the figure keeps within limit, "<= x" or ">= x"; the empty limit is always kept.
func Meets(x float64, limit string) bool {
	op, bound, err := parseLimit(limit)
	switch {
	case err != nil:
		return false
	case op == "<=":
		return x <= bound
	case op == ">=":
		return x >= bound
	}
	return true
}

func parseLimit(s string) (op string, bound float64, err error) {
	if s == "" {
		return "", 0, nil
	}
	op, number, _ := strings.Cut(s, " ")
	if bound, err = strconv.ParseFloat(number, 64); err != nil || op != "<=" && op != ">=" {
		return "", 0, fmt.Errorf("limit %q: write it as \"<= 3.5\" or \">= 1.25\"", s)
	}
	return op, bound, nil
}
