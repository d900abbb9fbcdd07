package pipeline

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"

	"github.com/quantgate/quantgate/accuracy"
	"github.com/quantgate/quantgate/dataset"
	"github.com/quantgate/quantgate/internal/digest"
)

// ManifestName is the manifest's file name inside an output folder.
const ManifestName = "manifest.json"

// manifestFormat is the major version of the manifest's layout; readers refuse any other.
const manifestFormat = 1

// ErrOtherRun says that a folder's state belongs to a run with other inputs or settings.
var ErrOtherRun = errors.New("state of another run")

// Manifest says what a run read, with what it worked and what it wrote: enough to repeat it, and to notice that a cache or
// a half-finished run belongs to something else.
type Manifest struct {
	Format      int                 `json:"format"`
	Tool        string              `json:"tool"`
	Command     []string            `json:"command"`
	Engine      string              `json:"engine"`
	Images      ManifestImages      `json:"images"`
	Calibration ManifestCalibration `json:"calibration"`
	StopEarly   *ManifestStop       `json:"stop_early,omitempty"`
	// EngineDefaults says that Q/DQ candidates were run as the engine's default session does.
	EngineDefaults bool            `json:"engine_defaults,omitempty"`
	Models         []ManifestModel `json:"models"`
	Outcomes       *ManifestFile   `json:"outcomes,omitempty"`
	// Earlier are the runs whose caches or models still lie in the folder: they tell what those were calibrated on.
	Earlier []*Manifest `json:"earlier,omitempty"`
}

// ManifestImages identifies the images and their labels.
type ManifestImages struct {
	Path         string         `json:"path"`
	Format       dataset.Format `json:"format"`
	Count        int            `json:"count"`
	ListSHA256   string         `json:"list_sha256"`
	FileSHA256   string         `json:"file_sha256,omitempty"` // of the images file, where one holds them all (IDX)
	LabelsSHA256 string         `json:"labels_sha256,omitempty"`
	Decoder      string         `json:"decoder"`
}

// ManifestCalibration says which images calibrated and how.
type ManifestCalibration struct {
	Method string `json:"method,omitempty"`
	// CacheVersion is the TensorRT version in the written caches' first line.
	CacheVersion string `json:"cache_version,omitempty"`
	BatchSize    int    `json:"batch_size"`
	Batches      int    `json:"batches"`
	Seed         uint64 `json:"seed,omitempty"`
	Stratified   bool   `json:"stratified"`
	// OwnCalibrator says that INT8 stands on quantgate's calibrator on an engine that has one too.
	OwnCalibrator bool `json:"own_calibrator,omitempty"`
	NativeLegacy  bool `json:"native_legacy,omitempty"` // the engine's legacy calibrator
	// IDs and Paths name the images that calibrated, or would have; they are never scored.
	IDs   []int    `json:"ids"`
	Paths []string `json:"paths"`
}

// ManifestModel describes one model and what was made of it.
type ManifestModel struct {
	Name        string             `json:"name"`
	SHA256      string             `json:"sha256"`
	Preprocess  dataset.Preprocess `json:"preprocess"`
	Output      string             `json:"output,omitempty"` // that holds the class scores, where it was named
	ClassOffset int                `json:"class_offset"`
	Precisions  []string           `json:"precisions"`
	Candidates  map[string]string  `json:"candidates,omitempty"` // evaluate: name to the file's sha256
	UsedCache   string             `json:"used_cache_sha256,omitempty"`
	CachePath   string             `json:"cache_path,omitempty"` // where the cache was asked for, if not in the folder
	Cache       *ManifestFile      `json:"cache,omitempty"`
	Histograms  *ManifestFile      `json:"histograms,omitempty"`
	Native      *ManifestFile      `json:"native_cache,omitempty"` // as the engine's own calibrator wrote it
	INT8        *ManifestFile      `json:"int8,omitempty"`
	FP16        *ManifestFile      `json:"fp16,omitempty"`
	// Computed says, by precision, what was computed in which type; Forms how Q/DQ candidates were put to the engine.
	Computed   map[string]string `json:"computed,omitempty"`
	Forms      map[string]string `json:"forms,omitempty"`
	Calibrated *Calibrated       `json:"calibrated,omitempty"`
	Skipped    []accuracy.Skip   `json:"skipped,omitempty"` // images that could not be scored because they could not be read
	Stages     []Stage           `json:"stages,omitempty"`  // by every process that worked on the run
}

// Calibrated says what a calibration saw.
type Calibrated struct {
	Images   int             `json:"images"`
	Batches  int             `json:"batches"`
	Skipped  []accuracy.Skip `json:"skipped,omitempty"` // calibration images that could not be read
	Warnings []string        `json:"warnings,omitempty"`
}

// ManifestFile is a file that the run wrote.
type ManifestFile struct {
	File   string `json:"file"`
	SHA256 string `json:"sha256"`
}

// key digests everything that decides a run's results. Two runs with equal keys write the same outcomes.
func (m *Manifest) key() string {
	k := *m
	k.Command, k.Outcomes, k.Images.Path, k.Earlier = nil, nil, "", nil
	k.Models = append([]ManifestModel(nil), m.Models...)
	for i := range k.Models {
		e := &k.Models[i]
		e.Cache, e.Histograms, e.INT8, e.FP16, e.Native, e.Calibrated, e.Skipped, e.Stages = nil, nil, nil, nil, nil, nil, nil, nil
		e.Computed, e.Forms = nil, nil
	}
	b, err := json.Marshal(k)
	if err != nil {
		panic("pipeline: manifest does not marshal: " + err.Error()) // plain data: cannot happen
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// differences lists, in words, what tells the run of m from that of an earlier manifest.
func (m *Manifest) differences(old *Manifest) []string {
	var d []string
	add := func(what, was, is string) {
		if was != is {
			d = append(d, fmt.Sprintf("%s was %s, is %s", what, was, is))
		}
	}
	add("quantgate", old.Tool, m.Tool)
	add("engine", old.Engine, m.Engine)
	add("image decoder", old.Images.Decoder, m.Images.Decoder)
	add("image list", short(old.Images.ListSHA256), short(m.Images.ListSHA256))
	add("images file", short(old.Images.FileSHA256), short(m.Images.FileSHA256))
	add("labels", short(old.Images.LabelsSHA256), short(m.Images.LabelsSHA256))
	add("number of images", fmt.Sprint(old.Images.Count), fmt.Sprint(m.Images.Count))
	add("method", old.Calibration.Method, m.Calibration.Method)
	add("cache version", old.Calibration.CacheVersion, m.Calibration.CacheVersion)
	add("batch size", fmt.Sprint(old.Calibration.BatchSize), fmt.Sprint(m.Calibration.BatchSize))
	add("calibration batches", fmt.Sprint(old.Calibration.Batches), fmt.Sprint(m.Calibration.Batches))
	add("engine defaults", fmt.Sprint(old.EngineDefaults), fmt.Sprint(m.EngineDefaults))
	add("early stopping", old.StopEarly.String(), m.StopEarly.String())
	add("number of models", fmt.Sprint(len(old.Models)), fmt.Sprint(len(m.Models)))
	for i := range min(len(old.Models), len(m.Models)) {
		was, is := old.Models[i], m.Models[i]
		add(fmt.Sprintf("model %d", i+1), was.Name+" "+short(was.SHA256), is.Name+" "+short(is.SHA256))
		add("preprocessing of "+is.Name, was.Preprocess.String(), is.Preprocess.String())
		add("output of "+is.Name, was.Output, is.Output)
		add("class offset of "+is.Name, fmt.Sprint(was.ClassOffset), fmt.Sprint(is.ClassOffset))
		add("precisions of "+is.Name, fmt.Sprint(was.Precisions), fmt.Sprint(is.Precisions))
		add("candidates of "+is.Name, fmt.Sprint(was.Candidates), fmt.Sprint(is.Candidates))
		add("cache file of "+is.Name, was.CachePath, is.CachePath)
		add("cache used for "+is.Name, short(was.UsedCache), short(is.UsedCache))
	}
	if len(d) == 0 {
		d = append(d, "the calibration images")
	}
	return d
}

func short(digest string) string {
	if digest == "" {
		return "none"
	}
	return digest[:min(12, len(digest))]
}

// addCandidates notes the digests of the candidates of the model added last.
func (m *Manifest) addCandidates(cs []Candidate) error {
	if len(cs) == 0 {
		return nil
	}
	digests := make(map[string]string, len(cs))
	for _, c := range cs {
		sum, err := digest.File(c.Path)
		if err != nil {
			return fmt.Errorf("read candidate %s: %w", c.Name, err)
		}
		digests[c.Name] = sum
	}
	m.Models[len(m.Models)-1].Candidates = digests
	return nil
}

// origin returns the run, m itself or an earlier one in its folder, that wrote a cache or model with the given digest; nil if none
// did.
func (m *Manifest) origin(sha256 string) *Manifest {
	for _, run := range append([]*Manifest{m}, m.Earlier...) {
		for _, e := range run.Models {
			for _, f := range []*ManifestFile{e.Cache, e.Native, e.INT8, e.FP16} {
				if f != nil && f.SHA256 == sha256 {
					return run
				}
			}
		}
	}
	return nil
}

// remember keeps what old, the manifest that m replaces in dir, knows about caches and models that are still there.
func (m *Manifest) remember(old *Manifest, dir string) {
	runs := append([]*Manifest{old}, old.Earlier...)
	old.Earlier = nil
	for _, run := range runs {
		if slices.ContainsFunc(run.Models, func(e ManifestModel) bool {
			return e.Cache.intact(dir) || e.Native.intact(dir) || e.INT8.intact(dir) || e.FP16.intact(dir)
		}) {
			m.Earlier = append(m.Earlier, run)
		}
	}
}

// model returns the entry called name, or nil.
func (m *Manifest) model(name string) *ManifestModel {
	for i := range m.Models {
		if m.Models[i].Name == name {
			return &m.Models[i]
		}
	}
	return nil
}

// ReadManifest reads the manifest in folder dir. A missing one is an error that wraps fs.ErrNotExist.
func ReadManifest(dir string) (*Manifest, error) {
	path := filepath.Join(dir, ManifestName)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	var m Manifest
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&m); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", path, err)
	}
	if m.Format != manifestFormat {
		return nil, fmt.Errorf("read manifest %s: format %d, this quantgate reads %d: it belongs to another program or version", path, m.Format, manifestFormat)
	}
	return &m, nil
}

func (m *Manifest) write(dir string) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return writeFile(filepath.Join(dir, ManifestName), append(b, '\n'))
}

// writeFile replaces path in one step: whoever reads it sees the old content or the new, never a part.
func writeFile(path string, b []byte) error {
	if err := renameio.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// manifestFile describes a file just written: relative to dir where it lies there, else by its absolute path.
func manifestFile(dir, path string) (*ManifestFile, error) {
	sum, err := digest.File(path)
	if err != nil {
		return nil, err
	}
	name, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", path, err)
	}
	if absDir, err := filepath.Abs(dir); err == nil {
		if rel, err := filepath.Rel(absDir, name); err == nil && filepath.IsLocal(rel) {
			name = rel
		}
	}
	return &ManifestFile{File: name, SHA256: sum}, nil
}

// Path is where f lies, dir being the manifest's folder.
func (f *ManifestFile) Path(dir string) string {
	if filepath.IsAbs(f.File) {
		return f.File
	}
	return filepath.Join(dir, f.File)
}

// Describes reports whether the file at path has the content that f was written with.
func (f *ManifestFile) Describes(path string) (bool, error) {
	sum, err := digest.File(path)
	return err == nil && sum == f.SHA256, err
}

// intact reports whether f still lies in dir with the content it was written with.
func (f *ManifestFile) intact(dir string) bool {
	if f == nil {
		return false
	}
	same, err := f.Describes(f.Path(dir))
	return err == nil && same
}

// previousManifest reads dir's manifest, or returns nil where there is none.
func previousManifest(dir string) (*Manifest, error) {
	m, err := ReadManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return m, err
}
