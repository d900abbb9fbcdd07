// Command quantgate calibrates image classifiers for INT8, measures what INT8 and FP16 cost in accuracy against FP32,
// and gates a release on that loss.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
