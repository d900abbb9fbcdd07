//go:build !linux

// Package sched tells the system what kind of work this process does.
package sched

// Batch does nothing: only Linux has such a policy.
func Batch() error { return nil }
