package reports_test

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/calib"
	"github.com/quantgate/quantgate/reports"
)

// full is sample with everything that the page alone shows.
func full(t *testing.T) *reports.Report {
	t.Helper()
	r := sample(t, nil)
	r.ClassNames = []string{"tench", "<b>goldfish</b>"}
	r.Facts = []reports.Fact{{Name: "engine", Value: "ort 1.30.0"}, {Name: "list, sha256", Value: strings.Repeat("ab", 32)}}
	m := &r.Models[0]
	for i := range 15 {
		m.Tensors = append(m.Tensors, reports.Tensor{Name: fmt.Sprintf("relu_%d", i), Amax: 3, Histogram: rectified(fmt.Sprintf("relu_%d", i), i)})
	}
	m.Tensors = append(m.Tensors, reports.Tensor{Name: "pool", Amax: 3})
	picker := reports.NewFlipPicker([]string{"fp32", "fp16", "int8"}, 2, reports.MostFlips(3))
	rec := accuracy.Record{ID: 4, Path: "a.png", Outcomes: []accuracy.Outcome{
		{Top1: 0, Top1Prob: 0.75, Rank: 1, Margin: 2}, {Top1: 0, Rank: 1}, {Top1: 1, Top1Prob: 0.5, Rank: 2, Margin: 1}}}
	picker.Add(&rec)
	m.Flips = picker.Flips()
	m.Flips.Images[0].Picture = noise(28, 28)
	return r
}

// rectified counts values as they are after a ReLU: most of them zero, the others falling up to 4, a share beyond 3.
func rectified(name string, seed int) *calib.Histogram {
	h := &calib.Histogram{Name: name, Range: 4, Max: 3.9}
	for j := range h.Counts {
		h.Counts[j] = uint64(2048-j)/64 + uint64(j*(seed+3))%5
	}
	h.Counts[0] = 100000
	return h
}

func noise(w, h int) image.Image {
	rng := rand.New(rand.NewPCG(1, 2))
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for i := range m.Pix {
		m.Pix[i] = byte(rng.Uint32())
	}
	for i := 3; i < len(m.Pix); i += 4 {
		m.Pix[i] = 255
	}
	return m
}

func pageOf(t *testing.T, r *reports.Report) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, reports.HTML(&b, r))
	return b.String()
}

func parsePage(t *testing.T, page string) *html.Node {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(page))
	require.NoError(t, err)
	return doc
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// all lists the elements of a name and, where class is given, with that class.
func all(n *html.Node, name, class string) []*html.Node {
	var out []*html.Node
	for d := range n.Descendants() {
		if d.Type == html.ElementNode && d.Data == name && (class == "" || slices.Contains(strings.Fields(attribute(d, "class")), class)) {
			out = append(out, d)
		}
	}
	return out
}

func text(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return b.String()
}

// Every element that is opened is closed in order, ids are unique, links lead somewhere, and nothing comes from outside.
func TestPageIsValidAndSelfContained(t *testing.T) {
	page := pageOf(t, full(t))
	void := []string{"meta", "img", "br", "link", "input", "hr"}
	var open []string
	z := html.NewTokenizer(strings.NewReader(page))
	for {
		tt := z.Next()
		if tt == html.ErrorToken {
			break
		}
		name, _ := z.TagName()
		switch tag := string(name); tt {
		case html.StartTagToken:
			if !slices.Contains(void, tag) {
				open = append(open, tag)
			}
		case html.EndTagToken:
			require.NotEmpty(t, open, tag)
			require.Equal(t, open[len(open)-1], tag)
			open = open[:len(open)-1]
		}
	}
	require.Empty(t, open)

	doc := parsePage(t, page)
	ids := map[string]bool{}
	for n := range doc.Descendants() {
		for _, a := range n.Attr {
			switch a.Key {
			case "id":
				require.False(t, ids[a.Val], "id %s twice", a.Val)
				ids[a.Val] = true
			case "src":
				require.True(t, strings.HasPrefix(a.Val, "data:image/"), a.Val)
			case "srcset", "action", "formaction", "ping", "xlink:href", "background", "poster", "style":
				t.Errorf("attribute %s", a.Key)
			}
			require.False(t, strings.HasPrefix(a.Key, "on"), a.Key)
			require.NotContains(t, a.Val, "ZgotmplZ")
		}
		if n.Type == html.ElementNode {
			require.NotContains(t, []string{"script", "link", "iframe", "object", "embed", "base"}, n.Data)
		}
	}
	for _, a := range all(doc, "a", "") {
		require.True(t, ids[strings.TrimPrefix(attribute(a, "href"), "#")], attribute(a, "href"))
	}
	for _, img := range all(doc, "img", "") {
		require.NotEmpty(t, attribute(img, "alt"))
	}
	for _, outside := range []string{"http:", "https:", "@import", "url(", "//"} {
		require.NotContains(t, withoutData(page), outside)
	}
	require.Len(t, all(doc, "h1", ""), 1)
	require.Equal(t, "quantgate verdict✗ FAIL", text(all(doc, "h1", "")[0]))
	require.Len(t, all(doc, "title", ""), 1)
	require.Equal(t, "en", attribute(all(doc, "html", "")[0], "lang"))
	for _, section := range []string{"intervals", "accuracy", "classes", "flips", "thresholds", "notes", "manifest"} {
		require.True(t, ids[section], section)
	}
	require.Len(t, all(doc, "svg", "hist"), 2*15)
	require.Contains(t, text(all(doc, "section", "")[len(all(doc, "section", ""))-1]), "ort 1.30.0")
}

// withoutData removes the embedded pictures, whose base64 may hold anything.
func withoutData(page string) string {
	parts := strings.Split(page, ";base64,")
	for i := 1; i < len(parts); i++ {
		_, parts[i], _ = strings.Cut(parts[i], `"`)
	}
	return strings.Join(parts, "")
}

func TestPageEscapes(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>'`
	r := full(t)
	r.Tool, r.Warnings = evil, []string{evil}
	r.Facts = []reports.Fact{{Name: evil, Value: evil}}
	r.ClassNames = []string{evil, evil}
	r.Dataset.Format = evil
	m := &r.Models[0]
	m.Name, m.Sentence = evil, evil
	m.Flips.Candidate, m.Flips.Images[0].Path = evil, evil
	m.Tensors[0].Name, m.Tensors[15].Name = evil, evil
	m.Calibration.Cache, m.Calibration.Method = evil, evil
	m.Quantization[0].File = evil
	m.Quantization[0].Float[0] = reports.FloatNode{Node: evil, Op: evil, Reason: evil}
	m.Precisions[2].Name = evil
	page := pageOf(t, r)
	doc := parsePage(t, page)
	require.Empty(t, all(doc, "script", ""))
	for n := range doc.Descendants() {
		require.Empty(t, attribute(n, "onerror"))
	}
	for _, img := range all(doc, "img", "") {
		require.NotEqual(t, "x", attribute(img, "src"))
	}
	require.Greater(t, strings.Count(text(all(doc, "body", "")[0]), evil), 15)
}

// A page is equal for equal reports and its size is bounded, here by 20 networks of 300 tensors with names of 1,000 letters and
// thumbnails that do not compress.
func TestPageIsBoundedAndDeterministic(t *testing.T) {
	big := func() *reports.Report {
		r := full(t)
		base := r.Models
		r.Models = nil
		for i := range 20 {
			m := base[i%len(base)]
			m.Name = fmt.Sprintf("%d%s", i, strings.Repeat("x", 1000))
			m.Tensors = nil
			for j := range 300 {
				m.Tensors = append(m.Tensors, reports.Tensor{Name: fmt.Sprintf("%d%s", j, strings.Repeat("y", 1000)), Amax: 3, Histogram: rectified("h", j)})
			}
			m.Quantization = []reports.Quantization{{Precision: "int8", Float: slices.Repeat([]reports.FloatNode{{Node: "n", Op: "Relu", Reason: "activation"}}, 500)}}
			m.Flips = &reports.Flips{Base: "fp32", Candidate: "int8"}
			for k := range reports.MostFlips(20) {
				m.Flips.Images = append(m.Flips.Images, reports.Flip{ID: k, Path: strings.Repeat("z", 1000), Picture: noise(reports.ThumbnailSide, reports.ThumbnailSide)})
			}
			r.Models = append(r.Models, m)
		}
		r.Warnings = slices.Repeat([]string{strings.Repeat("w", 100)}, 5000)
		return r
	}
	page := pageOf(t, big())
	require.Less(t, len(page), 3<<20)
	require.Equal(t, page, pageOf(t, big()))
	doc := parsePage(t, page)
	require.Len(t, all(doc, "svg", "hist"), 2*300)
	require.Len(t, all(doc, "img", "plot"), 0, "too many bars for a plot")
	require.Contains(t, text(doc), "and 4807 more")
}

// Sections and links of what a report lacks are left out.
func TestPageOfOutcomesAlone(t *testing.T) {
	s, err := accuracy.Evaluate(&accuracy.Outcomes{Precisions: []string{"fp32"},
		Models: []accuracy.ModelOutcomes{{Name: "m", Records: []accuracy.Record{{Outcomes: []accuracy.Outcome{{Rank: 1}}}}}}}, accuracy.DefaultPolicy())
	require.NoError(t, err)
	doc := parsePage(t, pageOf(t, reports.New(s)))
	require.Equal(t, "quantgate verdict– NOT COMPARED", text(all(doc, "h1", "")[0]))
	var links, sections []string
	for _, a := range all(doc, "a", "") {
		links = append(links, attribute(a, "href"))
	}
	for _, x := range all(doc, "section", "") {
		sections = append(sections, "#"+attribute(x, "id"))
	}
	require.Equal(t, []string{"#accuracy"}, links)
	require.Equal(t, links, sections)
}

// position reads a percentage.
func position(t *testing.T, n *html.Node, key string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(strings.TrimSuffix(attribute(n, key), "%"), 64)
	require.NoError(t, err)
	return v
}

// The pictures of the looks that decide say what the verdicts say: a bar on its side of the margin, or across it.
func TestIntervalPicturesAgreeWithVerdicts(t *testing.T) {
	for name, change := range map[string]func(*accuracy.Policy){
		"absolute": nil,
		"relative": func(p *accuracy.Policy) { p.MaxLoss.Relative = true },
	} {
		seen := map[string]int{}
		doc := parsePage(t, pageOf(t, sample(t, change)))
		for _, look := range all(doc, "div", "look") {
			if len(all(look, "strong", "")) == 0 {
				continue
			}
			svg := all(look, "svg", "")[0]
			margin := position(t, all(svg, "line", "margin")[0], "x1")
			bar := all(svg, "rect", "whisker")[0]
			low := position(t, bar, "x")
			high := low + position(t, bar, "width")
			point := position(t, all(svg, "circle", "point")[0], "cx")
			require.Less(t, low, point, name)
			require.Less(t, point, high, name)
			require.LessOrEqual(t, high, 100.0, name)
			verdict := attribute(svg, "class")
			seen[verdict]++
			switch verdict {
			case "pass":
				require.Less(t, high, margin, name)
			case "fail":
				require.Greater(t, low, margin, name)
			default:
				require.Less(t, low, margin, name)
				require.Greater(t, high, margin, name)
			}
		}
		require.Equal(t, map[string]int{"pass": 1, "fail": 1, "inconclusive": 1}, seen, name)
	}
}

// Where the base got nothing right, a relative loss has no value and no picture; one without a lower end is open.
func TestIntervalPicturesWithoutEnds(t *testing.T) {
	p := accuracy.DefaultPolicy()
	p.MaxLoss.Relative = true
	s, err := accuracy.Evaluate(&accuracy.Outcomes{Precisions: []string{"fp32", "fp16", "int8"},
		Models: []accuracy.ModelOutcomes{outcomes("m", block{30, [3]int{9, 9, 1}})}}, p)
	require.NoError(t, err)
	page := pageOf(t, reports.New(s))
	require.Contains(t, page, "not drawn")
	require.NotContains(t, page, "NaN%")
	require.NotContains(t, page, "Inf%")
}

func TestHistogramPictures(t *testing.T) {
	h := &calib.Histogram{Name: "t", Range: 2048, Max: 95.5}
	h.Counts[0], h.Counts[1], h.Counts[90], h.Counts[95] = 900, 50, 40, 10
	r := full(t)
	r.Models[0].Tensors = []reports.Tensor{{Name: "t", Amax: 48, Histogram: h}, {Name: "empty", Amax: 1, Histogram: &calib.Histogram{Name: "empty"}}}
	doc := parsePage(t, pageOf(t, r))
	pictures := all(doc, "svg", "hist")
	require.Len(t, pictures, 2, "linear and log; an empty histogram has none")
	// 99 bins of width 1 hold 95.5*1.03, two to a column: 50 columns. The first, 950, is beyond 3 times the second highest, 40, so
	// the linear picture ends at 1.25*40: 40 is 80 % of it and 10 is 20 %.
	require.Equal(t, "M0 100V0h1V100h44V20h1V100h1V80h1V100h2V100Z", attribute(all(pictures[0], "path", "bars")[0], "d"))
	require.Equal(t, 48.0, position(t, all(pictures[0], "line", "threshold")[0], "x1"))
	card := all(doc, "div", "hists")[0]
	require.Contains(t, text(card), "clipped 5 %", "40 and 10 of 1,000")
	require.Contains(t, text(card), "the first bar, 95.0 %, is cut off")
	// log(1+40)/log(1+950) is 0.542, log(1+10)/log(1+950) is 0.350
	require.Equal(t, "M0 100V0h1V100h44V45.8h1V100h1V65h1V100h2V100Z", attribute(all(pictures[1], "path", "bars")[0], "d"))
}

func TestFlipPicker(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var records []accuracy.Record
	for id := range 500 {
		o := func() accuracy.Outcome {
			class := rng.IntN(3)
			return accuracy.Outcome{Top1: class, Rank: 1 + min(class, 1), Margin: float32(rng.IntN(4))}
		}
		records = append(records, accuracy.Record{ID: id, Outcomes: []accuracy.Outcome{o(), o()}})
	}
	records[7].Outcomes[1] = accuracy.Outcome{Top1: -1, NaN: true}
	records[7].Outcomes[0] = accuracy.Outcome{Top1: 0, Rank: 1, Margin: 9}
	pick := func(limit int) *reports.Flips {
		p := reports.NewFlipPicker([]string{"a", "b"}, 1, limit)
		for i := range records {
			p.Add(&records[i])
		}
		return p.Flips()
	}
	every := pick(1000)
	var want []int
	lost, gained := 0, 0
	for _, r := range records {
		if r.Outcomes[0].Top1 != r.Outcomes[1].Top1 {
			want = append(want, r.ID)
			if r.Outcomes[0].Top1 == 0 {
				lost++
			}
			if r.Outcomes[1].Top1 == 0 {
				gained++
			}
		}
	}
	slices.SortStableFunc(want, func(a, b int) int {
		margin := func(id int) float32 { return records[id].Outcomes[0].Margin + records[id].Outcomes[1].Margin }
		return int(margin(b) - margin(a))
	})
	ids := func(f *reports.Flips) []int {
		var out []int
		for _, x := range f.Images {
			out = append(out, x.ID)
		}
		return out
	}
	require.Equal(t, want, ids(every))
	require.Equal(t, 7, want[0])
	require.Equal(t, []int{lost, gained, len(want) - lost - gained}, []int{every.Lost, every.Gained, every.Other})
	few := pick(10)
	require.Equal(t, want[:10], ids(few))
	require.Equal(t, every.Lost, few.Lost)
	rng.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	require.Equal(t, few, pick(10), "in any order")
}

func TestReadClassNames(t *testing.T) {
	for name, x := range map[string]struct {
		text string
		want []string
	}{
		"plain":  {"\ufeffT-shirt/top\r\nTrouser\n\nDress, long\n\n", []string{"T-shirt/top", "Trouser", "", "Dress, long"}},
		"synset": {"n01440764 tench, Tinca tinca\nn01443537\tgoldfish, Carassius auratus\n", []string{"tench", "goldfish"}},
	} {
		got, err := reports.ReadClassNames(strings.NewReader(x.text), "f")
		require.NoError(t, err, name)
		require.Equal(t, x.want, got, name)
	}
	_, err := reports.ReadClassNames(strings.NewReader("\n"), "names.txt")
	require.EqualError(t, err, "read class names names.txt: it is empty: give one name a line")
	_, err = reports.ReadClassNames(strings.NewReader("a\n"+strings.Repeat("b", 1<<17)), "names.txt")
	require.ErrorContains(t, err, "names.txt:2: ")
}

func TestThumbnailsTooLargeForPNGAreJPEG(t *testing.T) {
	r := full(t)
	grey := image.NewGray(image.Rect(0, 0, 96, 64))
	grey.SetGray(3, 3, color.Gray{Y: 200})
	r.Models[0].Flips.Images[0].Picture = grey
	img := all(parsePage(t, pageOf(t, r)), "figure", "card")[0].FirstChild
	require.True(t, strings.HasPrefix(attribute(img, "src"), "data:image/jpeg;base64,"))
	require.Equal(t, []string{"96", "64"}, []string{attribute(img, "width"), attribute(img, "height")})
}
