//go:build !linux

package ort

import "errors"

func memoryFile([]byte) (string, func(), error) { return "", nil, errors.ErrUnsupported }
