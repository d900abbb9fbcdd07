package calib

import (
	"fmt"
	"strconv"
	"strings"
)

// DefaultVersion is the TensorRT version that caches name unless told otherwise: 8.6.1, the last 8.x.
const DefaultVersion = "8601"

// Version turns a TensorRT version such as 8.6.1 or 10.15.1 into the number that a cache's first line holds. It is what
// TensorRT's getInferLibVersion returns (NV_TENSORRT_VERSION in NvInferRuntimeBase.h): major*1000 + minor*100 + patch below
// TensorRT 10, major*10000 + minor*100 + patch from 10 on. A fourth, build, number is ignored; the number itself is taken as it is.
func Version(s string) (string, error) {
	parts := strings.Split(s, ".")
	bad := func(why string) error {
		return fmt.Errorf("tensorrt version %q: %s: write it as 8.6.1 or 10.15.1", s, why)
	}
	if len(parts) == 1 && len(s) >= 4 && len(s) <= 6 && digits(s) {
		return s, nil
	}
	if len(parts) < 3 || len(parts) > 4 {
		return "", bad("not three numbers")
	}
	var n [4]int
	for i, p := range parts {
		v, err := strconv.Atoi(p)
		if err != nil || !digits(p) || len(p) > 4 {
			return "", bad("not a number: " + strconv.Quote(p))
		}
		n[i] = v
	}
	major, minor, patch := n[0], n[1], n[2]
	if major < 4 || major > 99 {
		return "", bad("no TensorRT has this major version")
	}
	if patch > 99 || minor > 99 || major < 10 && minor > 9 {
		return "", bad("a minor version or patch too large for the number")
	}
	if major < 10 {
		return strconv.Itoa(major*1000 + minor*100 + patch), nil
	}
	return strconv.Itoa(major*10000 + minor*100 + patch), nil
}

// Release turns the number in a cache's first line back into a version, 8.6.1 for 8601. A number it cannot take apart comes back unchanged.
func Release(number string) string {
	n, err := strconv.Atoi(number)
	if err != nil || !digits(number) || n < 4000 || n > 999999 {
		return number
	}
	major := n / 1000
	if n >= 100000 {
		major = n / 10000
	} else if n >= 10000 {
		return number
	}
	base := major * 1000
	if major >= 10 {
		base = major * 10000
	}
	return fmt.Sprintf("%d.%d.%d", major, (n-base)/100, (n-base)%100)
}

// digits reports whether s is one or more ASCII digits.
func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
