package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// buildVersion is set by the linker: -ldflags "-X main.buildVersion=v1.2.3". Without it the version is the module's or the commit's.
var buildVersion string

// buildFacts is what `version --json` prints.
type buildFacts struct {
	Version  string            `json:"version"`
	Commit   string            `json:"commit,omitempty"`
	Time     string            `json:"commit_time,omitempty"`
	Modified bool              `json:"modified"` // built from a tree that differs from the commit
	Go       string            `json:"go"`
	Platform string            `json:"platform"`
	Modules  map[string]string `json:"modules"` // versions of the modules that results depend on
}

// resultModules are the modules whose arithmetic or file formats can show in results.
var resultModules = []string{
	"github.com/yalue/onnxruntime_go",
	"github.com/disintegration/imaging",
	"github.com/klauspost/compress",
	"golang.org/x/image",
	"gonum.org/v1/gonum",
	"google.golang.org/protobuf",
}

func newVersionCmd(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of quantgate and of what it is built from",
		Long: `Print quantgate's version, the commit and the Go release that it was built from, and the
versions of the modules that results depend on. No library is loaded: the doctor verb
says which ONNX Runtime and which JPEG decoder are found here.`,
		Example: `  quantgate version
  quantgate version --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			info, _ := debug.ReadBuildInfo()
			facts := factsOf(info)
			if asJSON {
				return printJSON(a.stdout, facts)
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "quantgate\t%s\n", facts.Version)
			if facts.Commit != "" {
				fmt.Fprintf(w, "commit\t%s\n", strings.Join(facts.commitWords(), ", "))
			}
			fmt.Fprintf(w, "go\t%s, %s\n", facts.Go, facts.Platform)
			for _, path := range resultModules {
				if v, ok := facts.Modules[path]; ok {
					fmt.Fprintf(w, "%s\t%s\n", path, v)
				}
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON instead of text")
	return cmd
}

// commitWords describes the commit, its time and whether the tree was changed.
func (f buildFacts) commitWords() []string {
	words := []string{f.Commit}
	if f.Time != "" {
		words = append(words, f.Time)
	}
	if f.Modified {
		words = append(words, "modified")
	}
	return words
}

// version is quantgate's version as manifests and reports name it.
func version() string {
	info, _ := debug.ReadBuildInfo()
	return factsOf(info).Version
}

// factsOf reads what the Go tool stamped into the binary; info is nil where it stamped nothing.
func factsOf(info *debug.BuildInfo) buildFacts {
	f := buildFacts{
		Version: buildVersion, Go: runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH, Modules: map[string]string{},
	}
	if info == nil {
		info = &debug.BuildInfo{}
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			f.Commit = s.Value
		case "vcs.time":
			f.Time = s.Value
		case "vcs.modified":
			f.Modified = s.Value == "true"
		}
	}
	for _, dep := range info.Deps {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		for _, path := range resultModules {
			if dep.Path == path {
				f.Modules[path] = dep.Version
			}
		}
	}
	if f.Version == "" && info.Main.Version != "(devel)" {
		f.Version = info.Main.Version
	}
	if f.Version == "" {
		f.Version = "devel"
		if len(f.Commit) >= 12 {
			f.Version += "-" + f.Commit[:12]
		}
	}
	return f
}
