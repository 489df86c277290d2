//go:build !minimal

// The whole of Vault, with every cloud's parts, is not what is built here: see main.go.
package main

import "os"

func main() {
	_, _ = os.Stderr.WriteString("built without its parts: build it by lab/toolchain/build vault (-tags minimal)\n")
	os.Exit(2)
}
