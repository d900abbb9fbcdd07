package main

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
)

//go:embed peer.py
var peerSource string

// peer is the Python side: one process that does one task at a time.
type peer struct {
	cmd      *exec.Cmd
	in       io.WriteCloser
	out      *bufio.Reader
	Versions []string `json:"versions"`
	Tasks    []string `json:"tasks"`
}

// startPeer starts peer.py on a folder of images.
func startPeer(python, folder string) (*peer, error) {
	p := &peer{cmd: exec.Command(python, "-c", peerSource, folder)} //nolint:gosec // the user names the Python
	p.cmd.Stderr = os.Stderr
	// One core each: no library may take more.
	p.cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "MKL_NUM_THREADS=1")
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if err := p.answer(p); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *peer) has(task string) bool { return slices.Contains(p.Tasks, task) }

// answer reads a line of JSON.
func (p *peer) answer(into any) error {
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("peer.py ended: %w", err)
	}
	return json.Unmarshal(line, into)
}

// run does a task with every image, repeats times over.
func (p *peer) run(task string, repeats int) (cost, error) {
	var c cost
	if _, err := fmt.Fprintln(p.in, task, repeats); err != nil {
		return c, err
	}
	return c, p.answer(&c)
}

// digest is the SHA-256 of a task's tensors, in hex.
func (p *peer) digest(task string) (string, error) {
	var a struct {
		Digest string `json:"digest"`
	}
	if _, err := fmt.Fprintln(p.in, "digest", task); err != nil {
		return "", err
	}
	return a.Digest, p.answer(&a)
}

func (p *peer) close() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}
