package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/quantgate/quantgate/internal/trttest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"quantgate": main})
}

// TestScripts runs every verb as a user would. A script finds the repository at $ROOT, its models at $MODELS and ONNX
// Runtime through $QUANTGATE_ORT_LIB; `[!ort] skip` marks those that need the library. $FAKES is a TensorRT 8.6.1 with its driver, none of
// which is real: internal/trttest says what it computes and how to make it fail.
func TestScripts(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	require.NoError(t, err)
	lib := os.Getenv("QUANTGATE_ORT_LIB")
	if lib == "" {
		lib = filepath.Join(root, ".deps", "onnxruntime", "lib", "libonnxruntime.so.1")
	}
	_, missing := os.Stat(lib)
	if missing != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("ONNX Runtime is missing at %s: run make deps", lib)
		}
		t.Logf("SKIPPING the scripts that need ONNX Runtime: %v (run make deps)", missing)
	}
	fakes := trttest.Build(t, 8601)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("ROOT", root)
			env.Setenv("MODELS", filepath.Join(root, "testdata", "models"))
			env.Setenv("FAKES", fakes)
			env.Setenv("XDG_CACHE_HOME", filepath.Join(env.WorkDir, ".cache"))
			if missing == nil {
				env.Setenv("QUANTGATE_ORT_LIB", lib)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"interrupt": interrupt, "profile": profile},
		Condition: func(cond string) (bool, error) {
			return cond == "ort" && missing == nil, nil
		},
	})
}

// interrupt SIGNAL FILE CODE COMMAND... runs a command until FILE holds more than a kilobyte, sends it SIGINT or SIGKILL, and
// checks its exit code: -1 stands for a death by the signal.
func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: interrupt SIGNAL FILE CODE COMMAND...")
	}
	signals := map[string]syscall.Signal{"SIGINT": syscall.SIGINT, "SIGKILL": syscall.SIGKILL}
	signal, ok := signals[args[0]]
	if !ok {
		ts.Fatalf("unknown signal %s", args[0])
	}
	code, err := strconv.Atoi(args[2])
	ts.Check(err)
	var path string
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if p := filepath.Join(dir, args[3]); path == "" && exec.Command(p, "version").Run() == nil {
			path = p
		}
	}
	cmd := exec.Command(path, args[4:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "QUANTGATE_ORT_LIB="+ts.Getenv("QUANTGATE_ORT_LIB"))
	cmd.Stderr = ts.Stderr()
	ts.Check(cmd.Start())
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if info, err := os.Stat(ts.MkAbs(args[1])); err == nil && info.Size() > 1024 {
			break
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			ts.Fatalf("%s did not grow in a minute", args[1])
		}
	}
	ts.Check(cmd.Process.Signal(signal))
	err = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != code {
		ts.Fatalf("exit code %d (%v), want %d", got, err, code)
	}
}

// profile FILE... checks that files are whole profiles of pprof's format, which are compressed and carry a checksum at their end.
func profile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: profile FILE...")
	}
	for _, file := range args {
		f, err := os.Open(ts.MkAbs(file))
		ts.Check(err)
		z, err := gzip.NewReader(f)
		ts.Check(err)
		b, err := io.ReadAll(z)
		ts.Check(errors.Join(err, f.Close()))
		if !bytes.Contains(b, []byte("quantgate")) {
			ts.Fatalf("%s names no function or binary of quantgate", file)
		}
	}
}
